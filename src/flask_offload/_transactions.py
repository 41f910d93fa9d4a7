"""What waits for the commit of a database transaction. The only place that knows SQLAlchemy.

An optional dependency: import this module where it is needed only.
"""

from __future__ import annotations

import typing as t

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

__all__ = ["AnySession", "hold"]

AnySession = Session | scoped_session[t.Any]
Release = t.Callable[[list[t.Any]], None]

#: Where a session keeps what waits in it, so that it goes away with the session.
KEY = "flask_offload"


class _Waiting:
    """What waits in one session, by the transaction or savepoint that it is of.

    :param release: Gets all that a transaction held, once that is committed and closed.
    """

    def __init__(self, release: Release) -> None:
        self.release = release
        self.held: dict[SessionTransaction, list[t.Any]] = {}
        self.committed: set[SessionTransaction] = set()


def hold(session: AnySession, item: object, release: Release) -> None:
    """Keep ``item`` until the current transaction of a session is committed.

    As any use of the session does, it begins a transaction where there is none. What belongs to a
    savepoint, or to a transaction, that is rolled back or closed is dropped.

    :param release: Called after the commit, with all that was held. The session has given its
        connection back by then, and is ready for the next transaction whatever this raises. The
        same for all calls.
    """
    real: Session = session() if isinstance(session, scoped_session) else session
    transaction = _current(real) or real.begin()
    waiting = real.info.setdefault(KEY, _Waiting(release))
    waiting.held.setdefault(transaction, []).append(item)


def _current(session: Session) -> SessionTransaction | None:
    """The savepoint or transaction that the next commit would commit first."""
    return session.get_nested_transaction() or session.get_transaction()


@event.listens_for(Session, "after_commit")
def _after_commit(session: Session) -> None:
    waiting: _Waiting | None = session.info.get(KEY)
    transaction = _current(session)
    if waiting is None or transaction is None:
        return
    if not transaction.nested:
        # Not released here: an error would leave the session unusable, and the connection is
        # still taken.
        waiting.committed.add(transaction)
    elif transaction in waiting.held:
        # A savepoint is as final as what is around it.
        waiting.held.setdefault(_around(transaction), []).extend(waiting.held.pop(transaction))


@event.listens_for(Session, "after_transaction_end")
def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    waiting: _Waiting | None = session.info.get(KEY)
    if waiting is None:
        return
    # Forgotten first, so that nothing is released a second time.
    items = waiting.held.pop(transaction, [])
    if transaction in waiting.committed:
        waiting.committed.remove(transaction)
        if items:
            waiting.release(items)


def _around(savepoint: SessionTransaction) -> SessionTransaction:
    """The savepoint or transaction that another savepoint is in."""
    around = savepoint.parent or savepoint
    while around.parent is not None and not around.nested:
        around = around.parent  # that one is of a flush
    return around
