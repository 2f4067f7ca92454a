import pytest
from theta_median import median

from git_theta.testing.strategies import StrategySuite


class TestMedian(StrategySuite):
    @pytest.fixture
    def strategy(self):
        return median
