"""What lies under a state directory: local or not, and how much is left."""

from pathlib import Path

import pytest

from p2pfed.store.disk import LEAST_FREE, MOUNTS, nearly_full, network_filesystem, not_local

MOUNTED = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
40 27 0:50 / /srv rw,relatime shared:1 master:2 - nfs4 server:/export rw,vers=4.2
41 40 0:51 / /srv/local\\040disk rw - xfs /dev/vdb rw
42 27 0:52 / /remote rw - fuse.sshfs me@there: rw
43 27 0:53 / /container rw - fuse.fuse-overlayfs fuse-overlayfs rw
44 27 0:54 / /share rw - ext4 /dev/vdc rw
45 27 0:55 / /share rw - cifs //server/share rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/p2pfed", None),
        ("/srv/p2pfed", "nfs4"),
        ("/srvother/p2pfed", None),
        ("/srv/local disk/p2pfed", None),
        ("/srv", "nfs4"),
        ("/remote/a/b", "fuse.sshfs"),
        ("/container/state", None),
        ("/share/state", "cifs"),
    ],
)
def test_a_network_file_system_is_known_by_the_mount_it_lies_under(tmp_path: Path, path: str, kind: str | None) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTED)
    assert network_filesystem(Path(path), mounts) == kind


def test_a_link_into_a_network_file_system_is_followed(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "remote")
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / {tmp_path / 'remote'} rw - nfs x rw\n")
    doubt = not_local(tmp_path / "state", mounts)
    assert doubt is not None and doubt.code == "STATE_NOT_LOCAL" and "(nfs)" in doubt.message
    assert not_local(tmp_path, mounts) is None


def test_where_the_kernel_does_not_tell_nothing_is_doubted(tmp_path: Path) -> None:
    assert network_filesystem(tmp_path, tmp_path / "missing") is None


@pytest.mark.skipif(not MOUNTS.exists(), reason="this kernel has no /proc/self/mountinfo")
def test_the_kernels_own_table_can_be_read() -> None:
    assert network_filesystem(Path("/proc")) is None


def test_a_disk_is_nearly_full_below_the_least_or_a_few_checkpoints() -> None:
    assert nearly_full(Path("/"), 0, lambda _: LEAST_FREE) is None
    doubt = nearly_full(Path("/"), 0, lambda _: LEAST_FREE - 1)
    assert doubt is not None and doubt.code == "DISK_LOW" and "less than 100 MiB" in doubt.message
    assert nearly_full(Path("/"), LEAST_FREE, lambda _: 5 * LEAST_FREE) is None
    assert nearly_full(Path("/"), LEAST_FREE, lambda _: 5 * LEAST_FREE - 1) is not None
