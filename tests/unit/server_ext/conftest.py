"""pytest-jupyter's fixtures for this directory alone (one of them is autouse), on pytest-asyncio's loop."""

import asyncio

import pytest
from pytest_jupyter.jupyter_server import *


@pytest.fixture
async def jp_asyncio_loop():
    """Return the loop that the test itself runs on, so that server and test share it."""
    return asyncio.get_running_loop()
