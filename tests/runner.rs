//! The one test binary for everything that crosses a crate; a test here reads the folder and fails if a file is missing
//! from this list.

#[path = "tidy.rs"]
mod tidy;

#[path = "words.rs"]
mod words;

#[path = "layers.rs"]
mod layers;

#[path = "circles.rs"]
mod circles;

#[path = "builds.rs"]
mod builds;

#[path = "e2e/ancestors.rs"]
mod ancestors;
#[path = "e2e/bad_friends.rs"]
mod bad_friends;
#[path = "e2e/bad_input.rs"]
mod bad_input;
#[path = "e2e/browser.rs"]
mod browser;
#[path = "e2e/bucket.rs"]
mod bucket;
#[path = "e2e/cdn.rs"]
mod cdn;
#[path = "e2e/coming.rs"]
mod coming;
#[path = "e2e/copied_home.rs"]
mod copied_home;
#[path = "e2e/crash.rs"]
mod crash;
#[path = "e2e/disks.rs"]
mod disks;
#[path = "e2e/disks_at_peers.rs"]
mod disks_at_peers;
#[path = "e2e/disks_mended.rs"]
mod disks_mended;
#[path = "e2e/faults.rs"]
mod faults;
#[path = "e2e/healing.rs"]
mod healing;
#[path = "e2e/history.rs"]
mod history;
#[path = "e2e/keep.rs"]
mod keep;
#[path = "e2e/keys.rs"]
mod keys;
#[path = "e2e/large_mount.rs"]
mod large_mount;
#[path = "e2e/late.rs"]
mod late;
#[path = "e2e/lender.rs"]
mod lender;
#[path = "e2e/liars.rs"]
mod liars;
#[path = "e2e/lost.rs"]
mod lost;
#[path = "e2e/made_pages.rs"]
mod made_pages;
#[path = "e2e/main_job.rs"]
mod main_job;
#[path = "e2e/manners.rs"]
mod manners;
#[path = "e2e/meeting.rs"]
mod meeting;
#[path = "e2e/mount.rs"]
mod mount;
#[path = "e2e/newcomer.rs"]
mod newcomer;
#[path = "e2e/one_lan.rs"]
mod one_lan;
#[path = "e2e/priority.rs"]
mod priority;
#[path = "e2e/pruned.rs"]
mod pruned;
#[path = "e2e/publish_back.rs"]
mod publish_back;
#[path = "e2e/publish_faults.rs"]
mod publish_faults;
#[path = "e2e/publish_lock.rs"]
mod publish_lock;
#[path = "e2e/publish.rs"]
mod publish_site;
#[path = "e2e/repeats.rs"]
mod repeats;
#[path = "e2e/restore_over.rs"]
mod restore_over;
#[path = "e2e/s3.rs"]
mod s3_client;
#[path = "e2e/sources.rs"]
mod sources;
#[path = "e2e/steward.rs"]
mod steward;
#[path = "e2e/stolen.rs"]
mod stolen;
#[path = "e2e/torture.rs"]
mod torture;
#[path = "e2e/turned_back.rs"]
mod turned_back;
#[path = "e2e/two_nats.rs"]
mod two_nats;
#[path = "e2e/unchanged.rs"]
mod unchanged;
#[path = "e2e/verdict.rs"]
mod verdict;
#[path = "e2e/voters.rs"]
mod voters;
#[path = "e2e/votes.rs"]
mod votes;
