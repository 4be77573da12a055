"""Why a rewrite does not apply: control flow inside `passes`, and the text of a remark."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flatfold.passes.rewrite import Change


class Decline(Exception):
    """A rewrite does not apply here. Control flow inside `passes`, and the text of a remark.

    `code` is stable; `reason` is one sentence with the numbers and names that it rests on. `change`
    is the one of several that it is about, where a check raises it.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.change: Change | None = None

    def bare(self) -> Decline:
        """The same without its traceback, whose frames would keep arrays alive."""
        return type(self)(self.code, self.reason)
