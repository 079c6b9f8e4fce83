//! The test kit: fixture trees, real `gridbackup` processes, comparison of trees, a
//! small internet of namespaces, a proxy that is late, S3 servers, failing
//! and small disks.

pub mod browser;
pub mod compare;
pub mod disk;
pub mod fixture;
pub mod grid;
pub mod home;
pub mod left_out;
pub mod netns;
pub mod proxy;
pub mod s3;
pub mod s3_proxy;
pub mod site;
pub mod small_disk;
pub mod sync_faults;
pub mod torture;
pub mod tree;
