"""The gateway's limits in the environment."""

import pytest

from llmos.errors import UsageError
from llmos_hub.gateway.options import GatewayOptions

TIMES = {"drain": "LLMOS_GATEWAY_DRAIN_SECONDS", "shutdown_delay": "LLMOS_GATEWAY_SHUTDOWN_DELAY_SECONDS"}


def test_how_long_a_gateway_takes_to_go():
    default = GatewayOptions.from_environment({})
    assert (default.shutdown_delay, default.drain) == (0, 30)
    found = GatewayOptions.from_environment({TIMES["shutdown_delay"]: "5", TIMES["drain"]: "600"})
    assert (found.shutdown_delay, found.drain) == (5, 600)


@pytest.mark.parametrize("name", TIMES.values())
@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", "86401"])
def test_what_is_no_time_is_refused_by_its_name(name, text):
    with pytest.raises(UsageError, match=f'{name}: "{text}" is not a number of seconds'):
        GatewayOptions.from_environment({name: text})
