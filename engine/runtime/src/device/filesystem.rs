//! Which kind of file system a path lies on: on one that several machines share, SQLite's write-ahead log is unsafe.

use std::path::Path;

use nix::sys::statfs::statfs;

/// A file system, by the kernel's name for its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One machine writes to it.
    Local(String),
    /// Other machines may write to it: shared memory does not reach them, and locks may not either.
    Network(String),
}

impl Kind {
    pub fn name(&self) -> &str {
        match self {
            Self::Local(name) | Self::Network(name) => name,
        }
    }
    pub fn is_network(&self) -> bool {
        matches!(self, Self::Network(_))
    }
}

/// The file system of `path`, or of the nearest folder above it that is there.
///
/// Told by the number that `statfs` gives; FUSE, which has one number for all, by the type in the table of mounts.
pub fn kind(path: &Path) -> Kind {
    let Some((path, stat)) = path.ancestors().map(nearest).find_map(|path| Some((path, statfs(path).ok()?))) else {
        return Kind::Local("unknown".to_owned());
    };
    // The type's width differs between architectures; the numbers have 32 bits.
    let magic = stat.filesystem_type().0 as u32;
    let mounts = || std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    of_magic(magic).unwrap_or_else(|| of_mounts(&mounts(), path))
}

/// An empty path means the current folder.
fn nearest(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// Numbers: `linux/magic.h`, and each file system's own source where it has none there.
fn of_magic(magic: u32) -> Option<Kind> {
    let local = |name: &str| Some(Kind::Local(name.to_owned()));
    let network = |name: &str| Some(Kind::Network(name.to_owned()));
    match magic {
        0x0000_ef53 => local("ext4"),
        0x5846_5342 => local("xfs"),
        0x9123_683e => local("btrfs"),
        0x2fc1_2fc1 => local("zfs"),
        0x0102_1994 => local("tmpfs"),
        0x8584_58f6 => local("ramfs"),
        0x794c_7630 => local("overlayfs"),
        0xf2f5_2010 => local("f2fs"),
        0xca45_1a4e => local("bcachefs"),
        0x0000_4d44 => local("vfat"),
        0x2011_bab0 => local("exfat"),
        0x0000_6969 => network("nfs"),
        0xff53_4d42 => network("cifs"),
        0xfe53_4d42 => network("smb2"),
        0x0000_517b => network("smb"),
        0x0102_1997 => network("9p"),
        0x00c3_6400 => network("ceph"),
        0x0bd0_0bd0 => network("lustre"),
        0x4750_4653 => network("gpfs"),
        0x1983_0326 => network("beegfs"),
        0x0116_1970 => network("gfs2"),
        0x7461_636f => network("ocfs2"),
        0x5346_414f => network("afs"),
        0x7375_7245 => network("coda"),
        0xaad7_aaea => network("panfs"),
        _ => None,
    }
}

/// The type of the mount that holds `path`, from a text like `/proc/self/mounts`. FUSE counts as shared, unless it is
/// known to be a disk of this machine.
fn of_mounts(mounts: &str, path: &Path) -> Kind {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let entries = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (device, mount, name) = (fields.next()?, fields.next()?, fields.next()?);
        path.starts_with(mount.replace("\\040", " ")).then_some((mount.len(), device, name))
    });
    // Of mounts over one another at one point, the last is seen: `max_by_key` gives it.
    let Some((_, device, name)) = entries.max_by_key(|(len, ..)| *len) else {
        return Kind::Local("unknown".to_owned());
    };
    let is_disk = device.starts_with("/dev/") && name == "fuseblk";
    if name.starts_with("fuse") && !is_disk && name != "fuse.lxcfs" {
        return Kind::Network(name.to_owned());
    }
    Kind::Local(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_file_systems_are_told_from_local_ones() {
        assert_eq!(of_magic(0x6969), Some(Kind::Network("nfs".into())));
        assert_eq!(of_magic(0x0102_1997), Some(Kind::Network("9p".into())));
        assert!(!of_magic(0xef53).unwrap().is_network());
        assert_eq!(of_magic(0x6573_5546), None, "FUSE is told by its mount");
    }

    #[test]
    fn fuse_is_told_by_the_mount_that_holds_the_path() {
        let mounts = "/dev/sda1 / ext4 rw 0 0\nhost:/x /srv/team fuse.sshfs rw 0 0\n/dev/sdb1 /usb fuseblk rw 0 0\n";
        assert_eq!(of_mounts(mounts, Path::new("/srv/team/a")), Kind::Network("fuse.sshfs".into()));
        assert_eq!(of_mounts(mounts, Path::new("/usb/a")), Kind::Local("fuseblk".into()));
        assert_eq!(of_mounts(mounts, Path::new("/srv/teams")), Kind::Local("ext4".into()));
        assert_eq!(of_mounts("", Path::new("/a")), Kind::Local("unknown".into()));
    }

    #[test]
    fn a_folder_that_is_not_there_yet_lies_where_it_will_be_made() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(kind(&folder.path().join("not/yet")), kind(folder.path()));
    }
}
