"""How people are reached: their browsers, what they do not want, and addresses that do not exist."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from kitaab_jobs.models.base import Base, Big, Id, Instant, Long, Now, check, index


class PushSubscription(Base):
    """A browser in which a person has allowed notifications. Whoever knows `endpoint` may write to it."""

    __tablename__ = "push_subscriptions"
    __table_args__ = (
        UniqueConstraint("endpoint", name="uq_push_subscriptions_endpoint"),
        check("push_subscriptions_endpoint_is_url", "endpoint ~ '^https?://[!-~]+$'"),
        check("push_subscriptions_p256dh_is_point", "p256dh ~ '^[A-Za-z0-9_-]{87}=?$'"),
        check("push_subscriptions_auth_is_secret", "auth ~ '^[A-Za-z0-9_-]{22}(==)?$'"),
        index("idx_push_subscriptions_user_id", "user_id"),
    )

    push_subscription_id: Mapped[Id]
    user_id: Mapped[Big] = mapped_column(ForeignKey("users.user_id", ondelete="CASCADE"))
    endpoint: Mapped[str] = mapped_column(String(2048))
    p256dh: Mapped[str] = mapped_column(String(128))
    auth: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[Now]
    last_used_at: Mapped[Instant | None]


class ChannelOptOut(Base):
    """Something that a person does not want over a channel; `kind` is "reminder" or "completion"."""

    __tablename__ = "channel_opt_outs"
    __table_args__ = (
        check("channel_opt_outs_kind_check", "kind IN ('reminder', 'completion')"),
        {"comment": "what people do not want over a channel; deleted when they want it again"},
    )

    user_id: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("users.user_id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    channel: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32), primary_key=True)
    created_at: Mapped[Now]


class SuppressedAddress(Base):
    """An e-mail address of which its server said that it does not exist, as the SHA-256 of its lower case."""

    __tablename__ = "suppressed_addresses"
    __table_args__ = (
        check("suppressed_addresses_is_sha256", "octet_length(address_hash) = 32"),
        {
            "comment": "e-mail addresses that do not exist, as the SHA-256 of their lower case;"
            " deleted when one is confirmed again"
        },
    )

    address_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    reason: Mapped[Long]
    created_at: Mapped[Now]
