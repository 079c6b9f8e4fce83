//! What a device could not do, as the kernel is told of it.

use disk::DeviceError;
use fuser::Errno;

/// The number that stands for an error. Its words have no place in an answer, and go to the log.
pub(super) fn errno(error: &DeviceError) -> Errno {
    let errno = match error {
        DeviceError::OutOfRange => Errno::EINVAL,
        DeviceError::ReadOnly => Errno::EROFS,
        DeviceError::NoSpace => Errno::ENOSPC,
        DeviceError::Unavailable(..) | DeviceError::Damaged(..) | DeviceError::Io(..) => Errno::EIO,
    };
    tracing::error!("The mounted disk: {error}");
    errno
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_number() {
        let words = || "why".to_owned();
        let table = [
            (DeviceError::OutOfRange, Errno::EINVAL),
            (DeviceError::ReadOnly, Errno::EROFS),
            (DeviceError::NoSpace, Errno::ENOSPC),
            (DeviceError::Unavailable(words()), Errno::EIO),
            (DeviceError::Damaged(words()), Errno::EIO),
            (DeviceError::Io(std::io::ErrorKind::PermissionDenied.into()), Errno::EIO),
        ];
        for (error, expected) in table {
            assert_eq!(errno(&error), expected, "{error}");
        }
    }
}
