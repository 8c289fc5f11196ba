"""The thread of a job: what is left is closed there, not later and elsewhere."""

import threading

from qtpy.QtCore import QThreadPool

from napari_mpt_deblur.widgets.worker import run_in_thread


def run(qtbot, steps, told):
    return run_in_thread(
        "a job",
        steps,
        yielded=lambda step: told.append(("yielded", step)),
        returned=lambda outcome: told.append(("returned", outcome)),
        finished=lambda: told.append(("finished", None)),
    )


def test_a_job_that_is_left_is_closed_in_its_own_thread(qtbot, caplog):
    told, closed_in = [], []

    def steps():
        try:
            while True:
                yield threading.get_ident()
        finally:
            closed_in.append(threading.get_ident())
            raise OSError("the disk is full")

    job = run(qtbot, steps, told)
    qtbot.waitUntil(lambda: len(told) > 2)
    job.quit()
    assert QThreadPool.globalInstance().waitForDone(10_000)
    assert closed_in == [told[0][1]]  # before anything here runs the event loop
    assert closed_in != [threading.get_ident()]
    qtbot.waitUntil(lambda: told[-1] == ("finished", None))
    assert all(kind != "returned" for kind, _ in told)
    assert "did not end as it should" in caplog.text


def test_a_job_that_ends_returns(qtbot):
    told = []

    def steps():
        yield 1
        return 2

    run(qtbot, steps, told)
    qtbot.waitUntil(lambda: ("finished", None) in told)
    assert told == [("yielded", 1), ("returned", 2), ("finished", None)]
