"""Measures fastrnn beside other libraries and beside the limits of the machine, in one run.

    python benchmarks/suite.py                            # some of every table, a few minutes
    python benchmarks/suite.py --full                     # all of every table
    python benchmarks/suite.py --quick                    # two shapes, ten seconds: a first impression
    python benchmarks/suite.py --tables small zaremba --modes forward
    python benchmarks/suite.py --kinds gru lstm-ragged    # the tables, restricted to these kinds
    python benchmarks/suite.py --shapes 25,16,512,512 100,1,64,64 --peers torch --baseline ../before

Writes build/benchmarks.json (every round), build/benchmarks.md (the tables) and, with matplotlib,
build/benchmarks.png. The modules describe the method: shapes.py (tables, kinds and modes), libraries.py (the
libraries), interleaved.py (processes and rounds), limits.py (peak, bandwidth and floor), scaling.py. report.py and
plots.py make tables and figures from a JSON file; compare.py compares two.
"""

import argparse
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path

import interleaved
import limits
import report
from libraries import (
    BASELINE,
    FASTRNN,
    LIBRARIES,
    PADDED,
    PEERS,
    REFERENCE,
    UNFROZEN,
    is_installed,
)
from shapes import DTYPES, KINDS, MODES, PLAIN, TABLES, Shape, label, select


# The shapes of --quick: one sequence, and a batch.
QUICKEST = [Shape(100, 1, 64, 64), Shape(20, 20, 200, 200)]


def processor():
    """The processor's name from Linux, else from Python."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def default_threads():
    # Not at the top: every process imports this file, and that of the baseline wants another fastrnn.
    from fastrnn import get_num_threads

    return get_num_threads()


def parse_shape(text):
    T, B, I, H = map(int, text.split(","))
    return Shape(T, B, I, H)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_argument_group("what is measured")
    what.add_argument("--full", action="store_true", help="all of every table: about half an hour")
    what.add_argument(
        "--quick", action="store_true", help="two shapes in few rounds, without limits and scaling: ten seconds"
    )
    what.add_argument("--tables", nargs="+", choices=TABLES, help="all of these tables")
    what.add_argument("--shapes", nargs="+", type=parse_shape, metavar="T,B,I,H", help="these shapes")
    what.add_argument(
        "--kinds",
        nargs="+",
        choices=KINDS,
        help=f"of the tables, what is of these kinds; the --shapes for each of them (default: {PLAIN})",
    )
    what.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    what.add_argument("--dtype", nargs="+", choices=DTYPES, default=["float32"])
    what.add_argument("--scaling", action="store_true", help="also how fastrnn scales by itself")
    what.add_argument("--only-scaling", action="store_true", help="nothing but that")
    who = parser.add_argument_group("who takes part, beside fastrnn")
    others = [*PEERS, REFERENCE]
    who.add_argument("--peers", nargs="*", choices=others, help="default: the libraries installed")
    who.add_argument("--unfrozen", action="store_true", help="also fastrnn packing in every call")
    who.add_argument("--baseline", metavar="FOLDER", help="also another build of fastrnn, in FOLDER")
    how = parser.add_argument_group("how")
    how.add_argument("--threads", type=int, default=default_threads(), help="here %(default)s")
    pace = interleaved.Pace()
    how.add_argument("--rounds", type=int, default=pace.rounds, help="at most; default %(default)s")
    how.add_argument("--turn", type=float, default=pace.turn, help="seconds; default %(default)s")
    how.add_argument("--pause", type=float, default=pace.pause, help="seconds; default %(default)s")
    how.add_argument("--no-cold", action="store_true", help="leave out the calls after 20 ms of sleep")
    how.add_argument("--no-limits", action="store_true", help="leave out peak and floor")
    then = parser.add_argument_group("what is done with it")
    then.add_argument(
        "--output",
        metavar="PREFIX",
        default="build/benchmarks",
        help="of the .json, .md and .png files; default %(default)s",
    )
    then.add_argument("--check", metavar="FILE", help="compare ratios with an earlier .json file, see compare.py")
    arguments = parser.parse_args()

    if arguments.quick:
        arguments.shapes = arguments.shapes or QUICKEST
        if arguments.output == parser.get_default("output"):  # the files of a long run stay
            arguments.output += "-quick"
        arguments.scaling, arguments.no_cold, arguments.no_limits = False, True, True
        arguments.rounds, arguments.turn, arguments.pause = interleaved.FEWEST_ROUNDS, 0.03, 0.01
    if arguments.peers is None:
        arguments.peers = [name for name, peer in PEERS.items() if is_installed(peer)]
    for name in arguments.peers:
        if not is_installed(LIBRARIES[name]):
            modules = " and ".join(LIBRARIES[name].modules)
            parser.error(f"{name} needs {modules}: pip install '.[peers]'")
    if arguments.baseline is not None and not Path(arguments.baseline, "fastrnn").is_dir():
        parser.error(f"--baseline {arguments.baseline}: there is no fastrnn in it")
    if arguments.threads < 1 or arguments.rounds < 1:
        parser.error("--threads and --rounds: at least 1")
    if not selected(arguments) and not arguments.only_scaling:
        parser.error("nothing to measure: no table or kind among these has these modes")
    if arguments.check is not None and not Path(arguments.check).is_file():
        parser.error(f"--check {arguments.check}: there is no such file")
    return arguments


def selected(arguments):
    """The cells of a run."""
    return select(arguments.modes, arguments.dtype, arguments.tables, arguments.full, arguments.shapes, arguments.kinds)


def say(line):
    print(line, file=sys.stderr, flush=True)


def measured_limits(arguments):
    """The limits for this run's number of threads and for one, or None with the reason printed."""
    from fastrnn import _config

    say("measuring the limits of the machine")
    try:
        return limits.measure([1, arguments.threads], _config.runnable()[-1])
    except limits.Unavailable as reason:
        say(f"without peak and floor: {reason}")
        return None


def started(arguments, cells):
    """The processes of all libraries, fastrnn first."""
    names = [FASTRNN]
    names += [PADDED] if any(KINDS[cell.kind].ragged for cell in cells) else []
    names += [UNFROZEN] if arguments.unfrozen else []
    names += [BASELINE] if arguments.baseline is not None else []
    names += arguments.peers
    return [
        interleaved.Process(
            name,
            LIBRARIES[name],
            arguments.threads,
            import_from=arguments.baseline if name == BASELINE else None,
        )
        for name in names
    ]


def measure_cells(arguments, cells, run):
    """Fills in the versions and, cell by cell, the results of a run."""
    pace = interleaved.Pace(arguments.rounds, arguments.turn, arguments.pause)
    processes = started(arguments, cells)
    run["versions"] |= {process.name: process.version for process in processes if process.name != PADDED}
    for number, cell in enumerate(cells, 1):
        taking_part = [p for p in processes if p.call("takes_part", cell.mode, cell.dtype, cell.kind)]
        seconds = interleaved.measure(taking_part, cell.mode, cell.dtype, cell.shape, pace, cell.kind)
        result = {**cell._asdict(), "shape": list(cell.shape), "seconds": seconds}
        if not arguments.no_cold:
            result["cold"] = interleaved.measure_cold(taking_part, seconds, pace)
        run["results"].append(result)
        row = report.Row(result, run)
        ratios = [f"{name} {report.short(ratio.median)}" for name, ratio in row.ratios.items()]
        say(
            f"{number} of {len(cells)}  {cell.mode} {cell.dtype} {label(cell.kind, cell.shape)}: "
            f"{', '.join([report.duration(row.seconds), *ratios])}"
        )
    for process in processes:
        process.stop()


def write(run, prefix):
    """The files of a run; pictures only where matplotlib is installed."""
    prefix = Path(prefix)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    written = [prefix.with_name(prefix.name + end) for end in (".json", ".md")]
    written[0].write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    written[1].write_text(report.markdown(run), encoding="utf-8")
    if importlib.util.find_spec("matplotlib") is not None:
        import plots

        written += plots.draw(plots.lines_of(run), prefix, run if run.get("scaling") else None)
    else:
        say("no pictures: pip install '.[plots]'")
    say(f"written: {', '.join(map(str, written))}")


def main():
    arguments = parse_arguments()
    # For libraries that read it when they are loaded; the processes inherit it.
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)

    cells = selected(arguments)
    run = {
        "machine": f"{processor()}, {os.cpu_count()} processors, {platform.system()}",
        "versions": {"Python": platform.python_version()},
        "threads": arguments.threads,
        "arguments": vars(arguments),
        "limits": None if arguments.no_limits else measured_limits(arguments),
        "results": [],
    }
    try:
        if not arguments.only_scaling:
            measure_cells(arguments, cells, run)
        if arguments.scaling or arguments.only_scaling:
            import scaling

            run["scaling"] = scaling.run(arguments.threads, say)
    finally:
        # Results measured before an interruption are kept.
        if run["results"] or "scaling" in run:
            write(run, arguments.output)
    print(report.markdown(run), end="")

    if arguments.check is not None:
        import compare

        before = json.loads(Path(arguments.check).read_text(encoding="utf-8"))
        print()
        sys.exit(compare.report_changes(before, run))


if __name__ == "__main__":
    main()
