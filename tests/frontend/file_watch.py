"""File accesses as the kernel reports them (inotify), those of native code included."""

from __future__ import annotations

import ctypes
import os
import select
import struct
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

_OPEN, _ACCESS = 0x20, 0x1
_EVENT = struct.Struct("iIII")


class Watch:
    """`opened` lists accesses of `paths`, and of files in those that are folders."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.handle = self.libc.inotify_init1(os.O_NONBLOCK)
        assert self.handle >= 0, os.strerror(ctypes.get_errno())
        self.names = {
            self.libc.inotify_add_watch(self.handle, os.fsencode(path), _OPEN | _ACCESS): path
            for path in paths
        }
        assert all(number > 0 for number in self.names)

    def opened(self) -> list[str]:
        """The files opened or read since the last call."""
        files = []
        while select.select([self.handle], [], [], 0)[0]:
            data, at = os.read(self.handle, 1 << 16), 0
            while at < len(data):
                number, _, _, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size + length
                name = data[at - length : at].rstrip(b"\0").decode()
                files.append(str(self.names[number] / name))
        return files

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.handle)
