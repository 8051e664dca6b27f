import subprocess
import sys
import textwrap


def run(code):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )


def test_importing_the_package_imports_no_tensorflow():
    result = run(
        """
        import sys
        import numpy as np
        import jaxlt.data
        from jaxlt.data import long_tailed_split, select_images
        select_images(np.zeros(3, int), (2,), rule="shuffled")
        heavy = {"tensorflow", "tensorflow_datasets", "sklearn"} & set(sys.modules)
        assert not heavy, heavy
        """
    )
    assert result.returncode == 0, result.stderr


def test_tensorflow_sees_no_gpu_and_says_nothing():
    result = run(
        """
        from jaxlt.data.pipelines.tensorflow_runtime import import_tensorflow
        tf = import_tensorflow()
        assert tf.config.get_visible_devices("GPU") == []
        import tensorflow
        assert tensorflow is tf
        print(int(tf.constant(1) + 1))
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "2\n"
