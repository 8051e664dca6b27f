"""What a log says of a run between its evaluations."""

import logging
import math

from jaxlt.training.loop.progress import Progress


def test_a_log_has_a_line_each_half_minute_and_one_for_each_evaluation(clock, caplog):
    progress = Progress("a run", 10, 110)
    with caplog.at_level(logging.INFO):
        for seconds in (20, 9, 2, 25, 6):
            clock.now += seconds
            progress.advance(2)
        clock.now += 38
        progress.report(30, [{"accuracy": 0.5, "few": math.nan}])
        clock.now += 29
        progress.advance(1)
    assert [record.getMessage() for record in caplog.records] == [
        "a run: step 16/110, 0.194 steps/s, ETA 08:05",
        "a run: step 20/110, 0.161 steps/s, ETA 09:18",
        "a run: step 30/110, accuracy 0.5, few -, 0.2 steps/s, ETA 06:40",
    ]
