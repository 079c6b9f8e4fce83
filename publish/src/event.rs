//! What a run tells while it works, and at its end. Keys are as people read them.

/// How the bucket differs from what the inventory says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drift {
    /// The object is gone.
    Missing,
    /// It is another.
    Changed,
    /// Nobody here put it there.
    Unknown,
}

/// Why an object was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was not there.
    New,
    /// The file has other contents.
    Content,
    /// It is to be compressed otherwise.
    Stored,
    /// An earlier upload was not heard of.
    Interrupted,
    /// Others removed it.
    Missing,
    /// Others changed it.
    Others,
}

/// Something happened, or would happen in a dry run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An object was put.
    Uploaded {
        /// Its key.
        key: String,
        /// Bytes of the file.
        bytes: u64,
        /// Bytes that were sent: fewer when compressed.
        sent_bytes: u64,
        /// What the matter was.
        why: Why,
    },
    /// An object became a file.
    Restored {
        /// Its key.
        key: String,
        /// Bytes received.
        bytes: u64,
    },
    /// Only its headers were changed; its bytes were there.
    Headers {
        /// Its key.
        key: String,
    },
    /// An object was deleted.
    Deleted {
        /// Its key.
        key: String,
    },
    /// CloudFront was told not to serve a path from its caches any more; `*` at its end stands for anything.
    Invalidated {
        /// The path.
        path: String,
    },
    /// The user's command was run.
    HookRan {
        /// The command.
        command: String,
    },
    /// Somebody else changed the bucket.
    Drifted {
        /// The key.
        key: String,
        /// How.
        drift: Drift,
    },
    /// A file or folder cannot be published. What was published of it stays.
    Broken {
        /// The path.
        path: String,
        /// Why.
        why: String,
    },
    /// The endpoint refused an object; the next run tries again.
    Failed {
        /// Its key.
        key: String,
        /// Why.
        why: String,
    },
    /// Something to know that is no failure.
    Warned {
        /// What.
        what: String,
    },
    /// So many files were looked at, and so many of them wait to be sent.
    Progress {
        /// Looked at.
        files: u64,
        /// Sent or settled of those that need it.
        done: u64,
        /// Those that need it, as far as is known.
        needed: u64,
    },
}

/// What a run did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files in the folder.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of these: as they were.
    pub unchanged: u64,
    /// Objects put.
    pub uploaded: u64,
    /// Bytes sent for them.
    pub sent_bytes: u64,
    /// Objects whose headers alone were changed.
    pub headers_changed: u64,
    /// Objects deleted.
    pub deleted: u64,
    /// Objects that should be deleted and were not: `--no-delete`, too many, or uploads that failed.
    pub kept: u64,
    /// Differences that somebody else made.
    pub drifted: u64,
    /// Files and folders that cannot be published.
    pub broken: u64,
    /// Objects that the endpoint refused.
    pub failed: u64,
    /// Requests sent, repeated ones included.
    pub requests: u64,
}
