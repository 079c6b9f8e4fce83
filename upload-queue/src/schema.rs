//! The tables of the queue, its packs and their care.

use database::Migration;

/// Oldest first.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        component: "queue",
        version: 1,
        sql: include_str!("../migrations/queue-0001.sql"),
    },
    Migration {
        component: "packs",
        version: 1,
        sql: include_str!("../migrations/packs-0001.sql"),
    },
    Migration {
        component: "dead",
        version: 1,
        sql: include_str!("../migrations/dead-0001.sql"),
    },
    Migration {
        component: "care",
        version: 1,
        sql: include_str!("../migrations/care-0001.sql"),
    },
    Migration {
        component: "care",
        version: 2,
        sql: include_str!("../migrations/care-0002.sql"),
    },
    Migration {
        component: "lost",
        version: 1,
        sql: include_str!("../migrations/lost-0001.sql"),
    },
];
