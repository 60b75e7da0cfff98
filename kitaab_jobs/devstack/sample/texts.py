"""What people write: notes, reflections and messages, by language."""

from __future__ import annotations

# Short notes beside an entry. A language that is not here writes in English.
NOTES: dict[str, tuple[str, ...]] = {
    "en": (
        "Tired, but did it anyway",
        "Late because of work",
        "With the children today",
        "Felt good",
        "Travelling, shortened",
        "Forgot yesterday, caught up this morning",
        "Half-hearted. Tomorrow better",
        "Best one this week!",
        "Had a cold",
        "Phone stayed in the other room",
    ),
    "ar": (
        "الحمد لله",
        "كنت متعبا اليوم",
        "مع العائلة",
        "تأخرت بسبب العمل",
        "يوم جميل",
        "سأحاول أكثر غدا إن شاء الله",
        "في السفر",
    ),
    "ur": (
        "الحمدللہ",
        "آج تھکن تھی",
        "دفتر کی وجہ سے دیر ہوئی",
        "بچوں کے ساتھ",
        "کل بہتر کروں گا",
        "سفر میں تھا",
        "دل کو سکون ملا",
    ),
    "id": (
        "Alhamdulillah lancar",
        "Capek, tapi tetap jalan",
        "Di perjalanan",
        "Bareng keluarga",
        "Besok harus lebih baik",
        "Hujan deras, di rumah saja",
        "Telat karena macet",
    ),
    "ms": ("Alhamdulillah", "Penat sikit hari ini", "Bersama keluarga", "Balik kampung", "Esok cuba lagi"),
    "tr": (
        "Çok şükür",
        "Bugün yorgundum",
        "İşten geç çıktım",
        "Ailece yaptık",
        "Yolculuktaydım",
        "Yarın daha iyi olacak inşallah",
        "Güzel bir gündü",
    ),
    "bn": ("আলহামদুলিল্লাহ", "আজ ক্লান্ত ছিলাম", "অফিসের কারণে দেরি", "পরিবারের সাথে", "কাল আরও ভালো করব"),
    "hi": ("आज थकान थी", "परिवार के साथ", "सफ़र में था", "कल बेहतर करूँगा", "अच्छा दिन रहा"),
    "fa": ("الحمدلله", "امروز خسته بودم", "با خانواده", "در سفر", "فردا بهتر می‌شود"),
    "fr": (
        "Fatigué, mais fait",
        "En retard à cause du travail",
        "En famille",
        "En voyage",
        "Demain je ferai mieux",
        "Très belle journée",
    ),
    "de": (
        "Müde, trotzdem gemacht",
        "Spät wegen der Arbeit",
        "Mit der Familie",
        "Unterwegs",
        "War ein guter Tag",
    ),
    "es": ("Cansado, pero cumplí", "Con la familia", "De viaje", "Mañana mejor"),
    "bs": ("Elhamdulillah", "Umoran danas", "Na putu", "Sa porodicom"),
}

# What somebody writes about a day: (of the good, of what is to improve).
REFLECTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "en": (
        (
            "Got up before the alarm for once. The whole day went more easily after that.",
            "Called my mother and we talked for an hour. I should do this every week.",
            "Small things today, but every one of them done.",
            "Three weeks without a gap. I did not believe that I could.",
            "The children asked to come along. That was the best part.",
        ),
        (
            "I answered sharply at work and it stayed with me all evening. Apologise tomorrow.",
            "Scrolled until one o'clock again. The phone sleeps in the kitchen from now on.",
            "Missed most of it. No excuses; start again in the morning.",
            "I talked about somebody who was not there. I would not have liked it.",
        ),
    ),
    "ar": (
        (
            "قرأت وردي كاملا اليوم وشعرت براحة كبيرة.",
            "زرت جدتي بعد غياب طويل.",
            "يوم هادئ، والحمد لله على كل حال.",
        ),
        ("غضبت بسرعة اليوم. يجب أن أصبر أكثر.", "ضاع المساء كله على الهاتف.", "تكلمت فيما لا يعنيني."),
    ),
    "ur": (
        ("آج فجر وقت پر ادا ہوئی، دن بھر سکون رہا۔", "والدہ کے ساتھ بیٹھا، بہت اچھا لگا۔"),
        ("غصے میں سخت بات کہہ دی، کل معافی مانگوں گا۔", "سارا وقت موبائل پر ضائع ہوا۔"),
    ),
    "id": (
        (
            "Hari ini bisa bangun sebelum subuh. Rasanya tenang sekali.",
            "Sempat menjenguk tetangga yang sakit.",
        ),
        ("Masih terlalu lama main HP sebelum tidur.", "Tadi marah ke adik. Besok minta maaf."),
    ),
    "tr": (
        ("Bugün her şeyi vaktinde yaptım, içim rahat.", "Babamla uzun uzun sohbet ettik."),
        ("Trafikte yine sinirlendim. Sabretmeyi öğrenmem lazım.", "Telefona çok vakit gitti."),
    ),
    "fr": (
        ("Une journée simple, mais rien n'a été oublié.", "J'ai aidé ma voisine avec ses courses."),
        ("Je me suis énervé pour rien. À corriger.", "Trop de temps devant l'écran ce soir."),
    ),
}

# A question to support and its answer: (subject, question, answer).
THREADS: tuple[tuple[str, str, str], ...] = (
    (
        "Reminder at the wrong hour",
        "Since we moved the clocks last week my reminder comes an hour late. Can you look?",
        "Thank you for telling us. The zone of your reminder was still your old city; choose the new one "
        "under Settings, and tomorrow's will be on time.",
    ),
    (
        "Can I rename a scale?",
        "I would like 'Late' to read 'After its time'. Do I lose my entries?",
        "No. Change the scale and we make a second version of it; what you have recorded keeps the first.",
    ),
    (
        "Delete a day",
        "I recorded Tuesday on Wednesday by mistake. How do I take it back?",
        "Open the day, touch the entry and choose Delete. Your merits are computed anew within a minute.",
    ),
    (
        "Export",
        "Is there a way to get my entries as a table?",
        "Yes: Settings, Your data, Export. A CSV file comes by mail.",
    ),
    (
        "My sister cannot see my list",
        "I accepted her request but she sees nothing.",
        "A request alone shows nothing: give her permission on the items that she may read.",
    ),
    ("شكر", "جزاكم الله خيرا على هذا التطبيق.", "وجزاكم مثله. يسعدنا أن نسمع اقتراحاتكم دائما."),
    (
        "Terima kasih",
        "Aplikasinya sangat membantu. Apakah nanti ada versi untuk keluarga?",
        "Terima kasih! Sedang kami pikirkan. Sementara ini izin baca dan tulis bisa dipakai.",
    ),
    (
        "Merit sayılmadı",
        "Otuz günü tamamladım ama rozet gelmedi.",
        "Bir gün eksik görünüyor: ayın 12'si. Kaydederseniz tamamlanır.",
    ),
)
