"""What went wrong, and what can be done about it."""


class Failure(Exception):
    def __init__(self, what, hint=None):
        super().__init__(what)
        self.hint = hint
