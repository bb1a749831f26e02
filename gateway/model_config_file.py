"""The config file that is read again and again, and what it says is reloaded.

At the head of a version's line: config file → ModelConfigFile → ModelConfigManager. Owned by the edge loop's thread;
the reading blocks on the file system and runs in executor threads.

Source: tensorflow_serving/model_servers/server.cc (PollFilesystemAndReloadConfig).
"""

import asyncio
import logging

from tensorgate.gateway.config_files import read_model_server_config
from tensorgate.gateway.core.clock import Clock
from tensorgate.gateway.model_config_manager import ModelConfigManager
from tensorgate.gateway.model_settings import SettingsOfModels, read_model_settings
from tensorgate.protos.status_codes import ServingError
from tensorgate.protos.tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

logger = logging.getLogger("tensorgate.model_config")

# A file that could not be taken over is tried again when it has changed, or after this time.
RETRY_S = 60.0


class ModelConfigFile:
    """Reads the file, and the settings file beside it, every ``poll_wait_s`` seconds; 0 or less: never by itself."""

    def __init__(
        self, path: str, settings_path: str, poll_wait_s: float, manager: ModelConfigManager, clock: Clock
    ) -> None:
        """Paths may be empty: there is no such file."""
        self._path = path
        self._settings_path = settings_path
        self._poll_wait_s = poll_wait_s
        self._manager = manager
        self._clock = clock
        self._polling: asyncio.Task[None] | None = None
        self._trouble = ""
        self._failed: tuple[ModelServerConfig, SettingsOfModels, float] | None = None

    def start(self) -> None:
        """Begins to read, if there is anything to read again; the first time at once."""
        if self._path and self._poll_wait_s > 0:
            self._polling = asyncio.get_running_loop().create_task(self._poll(), name="polling of the config file")

    async def stop(self) -> None:
        """Returns when nothing is read any more; a reload that it began goes on. Idempotent."""
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait({self._polling})
            self._polling = None

    async def _poll(self) -> None:
        while True:
            try:
                await self.read_once()
            except Exception:  # no fault may end the polling: the next reading may well succeed
                logger.exception("reading the configuration again failed")
            await asyncio.sleep(self._poll_wait_s)

    async def read_once(self) -> None:
        """Reads config and settings file, and reloads if they say something new; what is wrong is logged once."""
        try:
            config = await asyncio.to_thread(read_model_server_config, self._path)
            settings = await asyncio.to_thread(read_model_settings, self._settings_path)
        except ServingError as error:
            self._complain(f"the configuration stays as it is: {error}")
            return
        if config == self._manager.current.config and settings == self._manager.current.settings:
            self._complain("")
            return
        now_s = self._clock.monotonic_s()
        if self._failed is not None:
            failed_config, failed_settings, retry_s = self._failed
            if (config, settings) == (failed_config, failed_settings) and now_s < retry_s:
                return
        outcome = await self._manager.reload(config)
        # An error with the new configuration in place will not go away by trying again.
        failed = outcome.error is not None and config != self._manager.current.config
        self._failed = (config, settings, self._clock.monotonic_s() + RETRY_S) if failed else None

    def _complain(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            logger.error("%s", trouble)
        self._trouble = trouble
