"""System calls that an old kernel does not have, or a container's filter forbids: everything works without them."""

import errno
import json

import pytest

import harness
from sandbox import forbid_epoll_pwait2


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS], ids=["EPERM", "ENOSYS"])
def test_without_epoll_pwait2(pdctl, error):
    forbidden = forbid_epoll_pwait2(error)
    worker = pdctl.worker("--decode-ms-per-token", "2", preexec=forbidden)
    router = pdctl("serve", "--worker-urls", worker.url, preexec=forbidden)
    done = harness.run(
        "bench", "--base-url", router.url, "--model", "m", "--num-prompts", "20", "--request-rate", "200", "--json", preexec=forbidden
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["completed"] == 20
