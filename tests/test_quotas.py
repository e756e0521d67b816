"""The number of processors that a thread may use: csrc/runtime/processors.c with test files in place of the system's.

Affinity, quotas of cgroups of both versions, hardware threads of one core, and files that are missing or hostile.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CC = os.environ.get("CC", "cc").split()

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/cgroup").exists(), reason="looks at files as Linux has them"),
    pytest.mark.skipif(shutil.which(CC[0]) is None, reason="needs a C compiler"),
]

EIGHT = "use=0,1,2,3,4,5,6,7"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("processors") / "count_processors"
    sources = [ROOT / "tests" / "c" / "count_processors.c", ROOT / "csrc" / "runtime" / "processors.c"]
    flags = ["-O1", "-std=c11", "-Wall", "-Wextra", "-Werror", "-pthread", '-DFASTRNN_ROOT="."', "-I", ROOT / "csrc"]
    subprocess.run([*CC, *flags, *sources, "-o", path], check=True)
    return path


@pytest.fixture
def count(program, tmp_path):
    """A function of {path: text} and commands (see count_processors.c): [(processors, cores)], one for each time."""

    def count(files, *actions, **environment):
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        run = subprocess.run(
            [program, *actions], cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True, timeout=60
        )
        assert run.returncode == 0, run.stderr
        return [tuple(map(int, line.split())) for line in run.stdout.splitlines()]

    return count


def version_2(group, **limits):
    """The files of a process in a cgroup: /a_b has its limit as a_b, the root as root."""
    files = {"proc/self/cgroup": f"0::{group}\n"}
    for name, limit in limits.items():
        folder = "" if name == "root" else name.replace("_", "/") + "/"
        files[f"sys/fs/cgroup/{folder}cpu.max"] = limit
    return files


def version_1(controllers="cpu,cpuacct", folder="cpu", group="/", quota="-1\n", period="100000\n"):
    at = f"sys/fs/cgroup/{folder}{group.rstrip('/')}"
    return {
        "proc/self/cgroup": f"9:name=systemd:/elsewhere\n4:cpuset:/other\n3:{controllers}:{group}\n0::/\n",
        f"{at}/cpu.cfs_quota_us": quota,
        f"{at}/cpu.cfs_period_us": period,
    }


@pytest.mark.parametrize(
    "files, expected",
    [
        ({}, 8),  # neither /proc nor /sys
        (version_2("/"), 8),
        (version_2("/a"), 8),
        (version_2("/", root="200000 100000\n"), 2),  # a container with a namespace of its own
        (version_2("/", root="max 100000\n"), 8),
        (version_2("/a/b", a_b="300000 100000\n"), 3),
        (version_2("/a/b", a="300000 100000\n", a_b="max 100000\n"), 3),
        (version_2("/a/b", root="200000 100000", a="300000 100000\n", a_b="400000 100000\n"), 2),
        (version_2("/a/b", root="max 100000\n", a="600000 100000\n", a_b="400000 100000\n"), 4),
        (version_2("/a", a_b="100000 100000\n"), 8),  # of a cgroup within
        (version_2("/host/only", root="500000 100000\n"), 5),  # the path is that of the host
        (version_2("/../../b", root="300000 100000\n"), 3),  # of another namespace
        (version_2("/a:b", **{"a:b": "100000 100000\n"}), 1),
        (version_2("/a b", **{"a b": "100000 100000\n"}), 1),
        (version_2("/a", a="150000 100000\n"), 2),  # rounded up
        (version_2("/a", a="100001 100000\n"), 2),
        (version_2("/a", a="1000 100000\n"), 1),  # a hundredth of a processor
        (version_2("/a", a="25000 10000\n"), 3),  # CPUQuota=250%, CPUQuotaPeriodSec=10ms
        (version_2("/a", a="900000 100000\n"), 8),
        (version_2("/system.slice/x.service", **{"system.slice/x.service": "150000 100000\n"}), 2),
        (version_1(), 8),
        (version_1(quota="200000\n"), 2),
        (version_1(group="/docker/id", quota="250000\n"), 3),
        (version_1(controllers="cpuacct,cpu", quota="100000\n"), 1),
        (version_1(controllers="cpu", quota="100000\n"), 1),
        (version_1(controllers="cpuset", quota="100000\n"), 8),
        (version_1(folder="cpu,cpuacct", quota="100000\n"), 1),
        (version_1(quota="200000\n") | {"sys/fs/cgroup/unified/cpu.max": "100000 100000\n"}, 1),
        (version_1(quota="50000\n", period="25000\n"), 2),
    ],
)
def test_quotas(count, files, expected):
    assert count(files, EIGHT, "0") == [(expected, expected)]


NO_QUOTA = [
    "", "\n", "max\n", "100000", "0 100000", "100000 0", "0 0", "-1 100000", "100000 -1", "-1 -1", "nan nan", "inf inf",
    "inf 100000", "1e308 1e308", "9" * 400 + " 100000", "x" * 5000, "max max max\n" * 1000,
]  # fmt: skip


@pytest.mark.parametrize("text", NO_QUOTA, ids=lambda text: repr(text[:20]))
def test_files_that_tell_no_quota(count, text):
    """Malformed files cause neither a crash nor a wrong limit; the parent cgroup still counts."""
    assert count(version_2("/a", a=text, root="700000 100000\n"), EIGHT, "0") == [(7, 7)]


@pytest.mark.parametrize("text", NO_QUOTA, ids=lambda text: repr(text[:20]))
def test_files_that_tell_no_quota_of_version_1(count, text):
    quota, _, period = text.partition(" ")
    assert count(version_1(quota=quota, period=period), EIGHT, "0") == [(8, 8)]


@pytest.mark.parametrize(
    "text",
    ["", "\n", "::", "0:", "0::", "0:::", ":" * 5000, "0::" + "/a" * 5000, "1:cpu", "1:cpu:", "1:cpu,cpu,,cpu:/",
     "1:,:/\n" * 1000, "0::relative\n", "x" * 20000 + "\n0::/a\n", "\0\0\0:::\n0::/"],
)  # fmt: skip
def test_hostile_lists_of_cgroups(count, text):
    files = {"proc/self/cgroup": text, "sys/fs/cgroup/cpu.max": "max 100000\n"}
    assert count(files, EIGHT, "0") == [(8, 8)]


def test_a_folder_where_a_file_is_expected(count, tmp_path):
    for path in ("proc/self/cgroup", "sys/fs/cgroup/cpu.max", "sys/devices/system/cpu/cpu0/topology"):
        (tmp_path / path).mkdir(parents=True)
    assert count({}, EIGHT, "0") == [(8, 8)]
    (tmp_path / "proc/self/cgroup").rmdir()
    assert count({"proc/self/cgroup": "0::/\n"}, EIGHT, "0") == [(8, 8)]


def siblings(lists):
    return {
        f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list": text + "\n"
        for text, numbers in lists.items()
        for number in numbers
    }


@pytest.mark.parametrize(
    "use, lists, expected",
    [
        ("use=0,1,2,3", {"0,2": [0, 2], "1,3": [1, 3]}, (4, 2)),
        ("use=0,1,2,3", {"0-1": [0, 1], "2-3": [2, 3]}, (4, 2)),
        ("use=2,3", {"0,2": [0, 2], "1,3": [1, 3]}, (2, 2)),  # one of each core
        ("use=1,3", {"0-1": [0, 1], "2-3": [2, 3]}, (2, 2)),
        ("use=0,1,2,3", {"0-3": [0, 1, 2, 3]}, (4, 1)),
        ("use=0,1,2,3", {"0-1": [0, 1], "2": [2]}, (4, 3)),  # the last has no topology files
        ("use=0,1", {"": [0], "x": [1]}, (2, 2)),
        ("use=0,1", {"-5": [0], "99999999999999999999": [1]}, (2, 2)),
        ("use=0,1", {"nan": [0], "inf": [1]}, (2, 2)),
        ("use=1023", {"511,1023": [1023]}, (1, 1)),
    ],
)
def test_hardware_threads_of_one_core(count, use, lists, expected):
    assert count(siblings(lists), use, "0") == [expected]


def test_a_quota_limits_processors_and_cores(count):
    files = siblings({"0,2": [0, 2], "1,3": [1, 3]})
    assert count(files | version_2("/", root="300000 100000\n"), "use=0,1,2,3", "0") == [(3, 2)]
    assert count(files | version_2("/", root="100000 100000\n"), "use=0,1,2,3", "0") == [(1, 1)]


def test_changes_are_seen(count):
    """Affinity is read again after 10 ms, quotas after a second, because reading takes time."""
    assert count({}, "use=0,1,2", "100", "use=1", "105", "111", "use=0,1", "112", "122") == [
        (3, 3), (3, 3), (1, 1), (1, 1), (2, 2),
    ]  # fmt: skip
    tight, wide = "sys/fs/cgroup/a/cpu.max=100000 100000", "sys/fs/cgroup/a/cpu.max=max 100000"
    counts = count(version_2("/a", a="200000 100000\n"), EIGHT, "100", tight, "900", "1101", wide, "2000", "2102")
    assert [logical for logical, _ in counts] == [2, 2, 1, 1, 8]


def test_an_affinity_that_cannot_be_told(count):
    """If affinity cannot be read, as with more processors than a mask has, the last value or no limit applies."""
    assert count({}, "use=", "0")[0][0] >= 1
    assert count({}, "use=0,1", "0", "use=", "100") == [(2, 2), (2, 2)]


@pytest.mark.parametrize("running", [1, 2, 3, 1000])
def test_idle_processors(count, running):
    ((idle, processors),) = count({"proc/loadavg": f"0.20 0.18 0.12 {running}/1080 11206\n"}, "idle")
    assert idle == max(processors - running, 0)


@pytest.mark.parametrize(
    "text", ["", "0.20", "0.20 0.18 0.12", "0.20 0.18 0.12 x/80 1", "0.20 0.18 0.12 -3/80 1", "nan nan nan nan"]
)
def test_a_load_that_cannot_be_told(count, text):
    assert count({"proc/loadavg": text}, "idle")[0][0] == 0
