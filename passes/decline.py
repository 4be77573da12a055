"""Why a rewrite does not apply: control flow inside `passes`, and the text of a remark."""

from __future__ import annotations


class Decline(Exception):
    """A rewrite does not apply here. Control flow inside `passes`, and the text of a remark.

    `code` is stable; `reason` is one sentence with the numbers and names that it rests on.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason

    def bare(self) -> Decline:
        """The same without its traceback, whose frames would keep arrays alive."""
        return type(self)(self.code, self.reason)
