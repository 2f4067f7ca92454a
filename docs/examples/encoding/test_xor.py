import pytest
from theta_xor import ENCODING

from git_theta.testing.encodings import EncodingSuite


class TestXor(EncodingSuite):
    @pytest.fixture
    def encoding(self):
        return ENCODING
