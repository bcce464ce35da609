//! A process group that cannot outlive its owner.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// What the leader does: it reads a pipe that nobody writes to. The pipe ends when its owner drops it or dies, however
/// that happens, and the leader takes its group with it. It runs these words alone, never a user's.
const LEADER: &str = "trap '' TERM INT HUP; read -r _; kill -KILL 0";

/// The group; dropping it kills every process in it.
pub(super) struct Group {
    leader: Child,
}

impl Group {
    /// # Errors
    /// There is no `/bin/sh`, or no process can be started.
    pub fn start() -> io::Result<Self> {
        let mut leader = Command::new("/bin/sh");
        leader.args(["-c", LEADER]).env_clear().current_dir("/");
        leader.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Ok(Self { leader: leader.spawn()? })
    }

    /// For [`CommandExt::process_group`]. The leader is not waited for before the end, so no other group takes this id.
    pub fn id(&self) -> i32 {
        self.leader.id() as i32
    }

    /// Asks every process to end.
    pub fn terminate(&self) {
        let _ = killpg(Pid::from_raw(self.id()), Signal::SIGTERM);
    }

    /// Ends every process at once.
    pub fn kill(&self) {
        let _ = killpg(Pid::from_raw(self.id()), Signal::SIGKILL);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        let _ = self.leader.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// A member that starts a child of its own; both hold the returned pipe until they die.
    fn member_with_a_child(group: &Group) -> Child {
        let mut member = Command::new("/bin/sh");
        member.args(["-c", "sleep 1000 & echo started; wait"]).stdout(Stdio::piped()).process_group(group.id());
        let mut member = member.spawn().unwrap();
        let mut said = [0u8; 8];
        member.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        member
    }

    #[test]
    fn children_of_children_die_when_the_owner_lets_go_of_the_pipe_as_a_killed_owner_does() {
        let mut group = Group::start().unwrap();
        let mut member = member_with_a_child(&group);
        drop(group.leader.stdin.take());
        let mut rest = String::new();
        member.stdout.take().unwrap().read_to_string(&mut rest).unwrap(); // ends when the last holder is gone
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&member.wait().unwrap()), Some(9));
    }

    #[test]
    fn dropping_the_group_ends_it_and_holding_it_does_not() {
        let group = Group::start().unwrap();
        let mut member = member_with_a_child(&group);
        assert!(member.try_wait().unwrap().is_none());
        drop(group);
        member.stdout.take().unwrap().read_to_end(&mut Vec::new()).unwrap();
        member.wait().unwrap();
    }
}
