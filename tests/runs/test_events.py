import tensorflow as tf

from jaxlt.runs.run import Events


def test_tensorflow_reads_what_is_written(tmp_path):
    events = Events(tmp_path / "events", 21)
    events.add({"loss": 7.5, "measurement/sharpness/few": 0.25}, 30)
    # On disk although the file is open.
    (file,) = (tmp_path / "events").iterdir()
    version, start, *points = list(tf.compat.v1.train.summary_iterator(str(file)))
    assert version.file_version == "brain.Event:2"
    # From here on TensorBoard hides what earlier files say.
    assert (start.step, start.session_log.status) == (21, 1)
    values = [(point.step, *point.summary.value) for point in points]
    assert [(step, value.tag, value.simple_value) for step, value in values] == [
        (30, "loss", 7.5),
        (30, "measurement/sharpness/few", 0.25),
    ]
    events.close()
