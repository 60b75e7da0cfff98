"""The shared schema: one file for each cluster of the entity-relationship model.

| file | tables |
|---|---|
| people | users |
| deeds | deeds, deed_items, scales, scale_values |
| sharing | relations, permissions |
| entries | entries, entry_history |
| communication | reflection_messages, messages, notifications |
| goals | merits, merit_items, targets, target_items |
| audit | audit_log |
| ledger | jobs.queues, jobs.kinds, jobs.jobs |
| schedules | jobs.schedules, jobs.fires, jobs.waiting_fires, jobs.processes, jobs.timetables |
| reaching | push_subscriptions, channel_opt_outs, suppressed_addresses |
| chores | jobs.deliveries, zone_data, notices, progress_marks, partitioned_tables, merit_history, target_history |
"""

from kitaab_jobs.models.audit import AuditLog
from kitaab_jobs.models.base import Base
from kitaab_jobs.models.chores import (
    Delivery,
    MeritHistory,
    Notice,
    PartitionedTable,
    ProgressMark,
    TargetHistory,
    ZoneData,
)
from kitaab_jobs.models.communication import Message, Notification, ReflectionMessage
from kitaab_jobs.models.deeds import Deed, DeedItem, Scale, ScaleValue
from kitaab_jobs.models.entries import Entry, EntryHistory
from kitaab_jobs.models.goals import Merit, MeritItem, Target, TargetItem
from kitaab_jobs.models.ledger import JobRow, Kind, Queue
from kitaab_jobs.models.people import User
from kitaab_jobs.models.reaching import ChannelOptOut, PushSubscription, SuppressedAddress
from kitaab_jobs.models.schedules import Fire, Process, ScheduleRow, Timetable, WaitingFire
from kitaab_jobs.models.sharing import Permission, Relation

__all__ = [
    "AuditLog",
    "Base",
    "ChannelOptOut",
    "Deed",
    "DeedItem",
    "Delivery",
    "Entry",
    "EntryHistory",
    "Fire",
    "JobRow",
    "Kind",
    "Merit",
    "MeritHistory",
    "MeritItem",
    "Message",
    "Notice",
    "Notification",
    "PartitionedTable",
    "Permission",
    "Process",
    "ProgressMark",
    "PushSubscription",
    "Queue",
    "ReflectionMessage",
    "Relation",
    "Scale",
    "ScaleValue",
    "ScheduleRow",
    "SuppressedAddress",
    "Target",
    "TargetHistory",
    "TargetItem",
    "Timetable",
    "User",
    "WaitingFire",
    "ZoneData",
]
