from tests.progress.diary import *
from kitaab_jobs.progress import queries, rules
from sqlalchemy import text
def test_x(diary):
    i=diary.item(); j=diary.item()
    m0=diary.merit()
    m=diary.merit(Part(j,6),Part(j,1),Part(j,3))
    diary.record(j, before(17), 1)
    ids=[m0[1],m[1]]
    with session_on(diary.connection) as s:
        base=queries._COMPARE["merit"]
        sql=base.text[:base.text.rindex("SELECT state.id FROM state")]
        for name in ("goal","item","tree","daily","counted","part","present","step","turn","together","completion","state"):
            q=text(sql+f" SELECT * FROM {name}").bindparams(*[b for b in base._bindparams.values()])
            print(name)
            for r in s.execute(q, queries._values(ids, rules.today_everywhere(NOW))): print("  ", r)
    assert 0
