"""Gives a Linux wheel its manylinux tag: python tools/repair_wheel.py WHEEL FOLDER

auditwheel finds the oldest glibc that the extension runs with and names it in the tag. The extension needs only the C
library. auditwheel would copy other libraries into the wheel without their licences: this is an error. Needs auditwheel
and patchelf.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path


def main(wheel, folder):
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", work, wheel]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (repaired,) = Path(work).glob("*.whl")
        bundled = sorted(name for name in zipfile.ZipFile(repaired).namelist() if ".libs/" in name)
        if bundled:
            sys.exit(f"the extension needs more than the C library: {', '.join(bundled)}")
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / repaired.name).write_bytes(repaired.read_bytes())
        print(repaired.name)


if __name__ == "__main__":
    main(*sys.argv[1:])
