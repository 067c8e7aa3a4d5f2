"""``make conformance``: every check of every tool that is here, one line each; exit status 1 if one failed."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import trustme

from tests.conformance.tools import Check, Target, checks, missing, run
from tests.support.server.raw_server_process import serving_raw

HOSTS = ("127.0.0.1", "localhost", "gateway.test")


def main() -> int:
    """Run all and tell; a tool that is not here is skipped, and loudly."""
    absent = missing()
    for tool, package in absent.items():
        print(f"SKIPPED  all checks of {tool}: it is not installed (Debian: apt-get install {package})")
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        _write_certificates(scratch)
        tls = f'certfile = "{scratch / "server.pem"}"\nkeyfile = "{scratch / "server.key"}"\n'
        with (
            serving_raw("umbel serve", scratch / "plain", hosts=HOSTS) as plain,
            serving_raw("umbel serve", scratch / "secure", hosts=HOSTS, settings=tls) as secure,
        ):
            target = Target(
                f"http://127.0.0.1:{plain.server.port}",
                f"https://localhost:{secure.server.port}",
                scratch / "ca.pem",
                scratch,
            )
            for check in checks(target):
                if check.command[0] not in absent:
                    failed += not _told(check)
            alive = plain.server.lives and secure.server.lives
            crashed = "Traceback" in plain.server.output + secure.server.output
    print("the workers are those that were started" if alive else "FAILED   a worker has ended")
    print("no traceback in their output" if not crashed else "FAILED   there is a traceback in their output")
    return int(failed or not alive or crashed)


def _told(check: Check) -> bool:
    judgement, output = run(check)
    print(
        f"{'ok' if judgement is not None else 'FAILED':8} {check.name}: {judgement or output.strip()[-600:]}",
        flush=True,
    )
    return judgement is not None


def _write_certificates(directory: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert(*HOSTS)
    issued.cert_chain_pems[0].write_to_path(str(directory / "server.pem"))
    issued.private_key_pem.write_to_path(str(directory / "server.key"))
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))


if __name__ == "__main__":
    sys.exit(main())
