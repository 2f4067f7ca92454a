import io

import numpy as np
import pytest
from theta_npy import FORMAT

from git_theta.testing.formats import FormatSuite


class TestNpy(FormatSuite):
    can_rebuild = False

    @pytest.fixture
    def plugin(self):
        return FORMAT

    @pytest.fixture
    def arrays(self):
        values = np.random.default_rng(0).standard_normal((1000, 500))
        return {"array": values.astype(np.float32)}

    @pytest.fixture
    def sample(self, arrays):
        file = io.BytesIO()
        np.save(file, arrays["array"])
        return file.getvalue()
