"""How root starts a server that refuses to run as root: as another user, yet with access to the folder."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from embedded.processes import EmbeddedError

OVERRIDES = ("+dac_override,+dac_read_search", "+dac_override", "")  # containers often withhold dac_read_search


@dataclass(frozen=True)
class Identity:
    """Who runs a server: the command's prefix, and the owner that its files must have (None: whoever owns them)."""

    prefix: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None

    def own(self, folder: Path) -> None:
        """Hand the folder and everything in it to the server's user, when that differs."""
        if self.owner is None or folder.stat().st_uid == self.owner[0]:
            return
        for parent, _, files in os.walk(folder):
            os.chown(parent, *self.owner)
            for name in files:
                os.chown(os.path.join(parent, name), *self.owner, follow_symlinks=False)


def unprivileged(folder: Path, program: Path) -> Identity:
    """The first way in which this program starts here and may write into `folder`, without being root.

    For an ordinary user that is the plain way. Root goes down to `nobody` by setpriv, keeping the right to walk through closed
    folders (the clone may lie in /root), or into a user namespace. Raises EmbeddedError when neither works.
    """
    if os.geteuid() != 0:
        return Identity()
    for identity in _ways():
        identity.own(folder)
        trial = 'cd "$1" && : > .trial && exec "$2" --version'
        command = [*identity.prefix, "/bin/sh", "-c", trial, "sh", str(folder.resolve()), str(program.resolve())]
        try:
            tried = subprocess.run(  # noqa: S603  # commands of ours
                command, stdin=subprocess.DEVNULL, capture_output=True, check=False, process_group=0
            )
        except OSError:
            continue
        finally:
            (folder / ".trial").unlink(missing_ok=True)
        if tried.returncode == 0:
            return identity
    raise EmbeddedError(
        f"Postgres does not run as root, and no other user of this machine may use {folder}: "
        "start again as an ordinary user, or name a folder open to everyone with TALLYGATE_DATA."
    )


def _ways() -> list[Identity]:
    ways = []
    setpriv, unshare = shutil.which("setpriv"), shutil.which("unshare")
    try:
        user = pwd.getpwnam("nobody")
    except KeyError:
        user = None  # initdb asks for the user's name: without an entry this way is closed
    dies = ("--pdeathsig", "INT")  # a change of user clears the one that the keeper has set
    if setpriv and user:
        for overrides in OVERRIDES:
            keep = ("--inh-caps", f"-all,{overrides}", "--ambient-caps", f"-all,{overrides}", "--securebits", "+no_setuid_fixup")
            become = (setpriv, "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups")
            prefix = (*become, *(keep if overrides else ()), *dies, "--")
            ways.append(Identity(prefix, (user.pw_uid, user.pw_gid)))
    if unshare and user:
        again = (setpriv, *dies, "--") if setpriv else ()
        ways.append(Identity((unshare, "--user", f"--map-user={user.pw_uid}", "--", *again), (0, 0)))
    return ways
