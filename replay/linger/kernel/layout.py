"""Numbers that the kernel and Python share: events, reasons, columns of the tables."""

from __future__ import annotations

from typing import Any, NamedTuple

NULL = -(1 << 62)
"""In place of a value that nobody told."""

# Reasons why something is not known.
KNOWN, Y_LATE, Y_LOSS, Y_ONE_SIDED, Y_CONTRADICTION, Y_SAME_ADDRESS, Y_ARGUMENTS = range(7)

# What a record is about.
CLOSE, SHUTDOWN, BARE, DATA_AFTER, RST_FOR_RST, CREDIT = range(1, 7)

# Which bracket a close was timed by.
CALL, RELEASE, TRANSPORT = range(3)
VIRTIO, HYPERV, VMCI = range(3)

# Operations of a packet.
REQUEST, RESPONSE, RST, SHUT, RW = range(1, 6)

# Events.
(
    EV_SOCKET,
    EV_SOCKET_RET,
    EV_ACCEPT,
    EV_ACCEPT_RET,
    EV_CONNECT,
    EV_CONNECT_RET,
    EV_SEND,
    EV_SEND_RET,
    EV_DUP,
    EV_DUP_RET,
    EV_SETSOCKOPT,
    EV_SETSOCKOPT_RET,
    EV_OPTION,
    EV_SHUTDOWN,
    EV_SHUTDOWN_RET,
    EV_CLOSE,
    EV_CLOSE_RET,
    EV_FORK,
    EV_EXIT,
    EV_SIGNAL,
    EV_DELIVERED,
    EV_LOST,
    EV_ALLOC,
    EV_RECV,
    EV_RELEASE,
    EV_RELEASED,
    EV_TRANSPORT,
    EV_TRANSPORT_RET,
    EV_OTHER,
    EV_OTHER_RET,
    EV_LINGER,
    EV_LINGERED,
    EV_VSHUTDOWN,
    EV_VSHUTDOWN_RET,
    EV_SENT,
    EV_TAKE,
    EV_TAKEN,
    EV_PUT,
    EV_DONE,
    EV_RESET,
    EV_ARGUMENTS,
) = range(1, 42)

# B_: rows of a batch: what the stream makes of one event.
(
    B_TS,
    B_SEQ,
    B_EV,
    B_THREAD,
    B_SK,
    B_A,
    B_B,
    B_SIZE,
    B_FLAGS,
    B_ATTR,
    B_RET,
    B_FD,
    B_FD2,
    B_CMD,
    B_ARGSZ,
    B_ID,
    B_COUNT,
    B_OFFSET,
    B_UNTIL,
    B_COLS,
) = range(20)

# T_: columns of a thread.
(
    T_IN,
    T_IN_FD,
    T_IN_TS,
    T_IN_SEQ,
    T_IN_ARG,
    T_OLD_ON,
    T_OLD_SECS,
    T_REL,
    T_REL_TS,
    T_TRANS,
    T_OPEN,
    T_PEND_SK,
    T_PEND_SIZE,
    T_LAST_OP,
    T_LAST_A,
    T_LAST_B,
    T_LAST_TS,
    T_EXIT,
    T_SIGNAL,
    T_CLOSED,
    T_CREDIT_TS,
    T_CREDIT_GOT,
    T_CREDIT_COUNT,
    T_CREDIT_BUF,
    T_CREDIT_TX,
    T_CREDIT_FWD,
    T_BORN,
    T_TID,
    T_PID,
    T_EPROBE,
    T_EPROBE_ON,
    T_EPROBE_SECS,
    T_FORKED,
    T_COLS,
) = range(34)

# K_: columns of a kernel socket (struct sock).
(
    K_SIDE,
    K_BYTES,
    K_DIRTY,
    K_COLS,
) = range(4)

# F_: columns of a descriptor: its socket (-1: not known, -2: none) and since when, whose copy
# it is, and the last socket that it named at a fork and that its process has closed since.
(
    F_OBJ,
    F_SINCE,
    F_PARENT,
    F_LEFT,
    F_COLS,
) = range(5)

# O_: columns of a socket as descriptors name it; of one that children may have and its maker has
# closed, since when and until when a descriptor named it, and what that one had named before.
(
    O_CREATED,
    O_TYPE,
    O_ON,
    O_SECS,
    O_OPT_TS,
    O_OPT_SEQ,
    O_REFS,
    O_SIDE,
    O_STRAY,
    O_SINCE,
    O_GONE,
    O_OLDER,
    O_COLS,
) = range(13)

# S_: columns of a side of a connection.
(
    S_LPORT,
    S_RCID,
    S_RPORT,
    S_LCID,
    S_LOOP,
    S_START,
    S_START_SEQ,
    S_TYPE,
    S_EST,
    S_A,
    S_C,
    S_R,
    S_RW_TS,
    S_RW_SEQ,
    S_LSHUT,
    S_PSHUT,
    S_PSHUT_TS,
    S_DONE,
    S_MAYBE,
    S_SK,
    S_CBAD,
    S_OBJ,
    S_QTHREAD,
    S_CLOSED,
    S_AMBIGUOUS,
    S_PBUF,
    S_PFWD,
    S_RECV_TS,
    S_SENT_TS,
    S_RESET,
    S_CREDIT,
    S_COLS,
) = range(32)

# R_: columns of a record: one close, shutdown or packet.
(
    R_KIND,
    R_LCID,
    R_LPORT,
    R_RCID,
    R_RPORT,
    R_LOOP,
    R_TID,
    R_PID,
    R_T0,
    R_SEQ0,
    R_T1,
    R_SEQ1,
    R_LEVEL,
    R_L0,
    R_L1,
    R_L0_SEQ,
    R_L1_SEQ,
    R_ON,
    R_SECS,
    R_ON_WHY,
    R_LTIME,
    R_SKFLAGS,
    R_STATE,
    R_SHUT,
    R_PSHUT,
    R_PSHUT_SEEN,
    R_LSHUT,
    R_EST,
    R_TYPE,
    R_TRANSPORT,
    R_EXITING,
    R_U0,
    R_U1,
    R_U_WHY,
    R_SENT,
    R_SENT_SEQ,
    R_DONE,
    R_DONE_SEQ,
    R_MAYBE,
    R_SIGNAL,
    R_NSHUT,
    R_SHUTFLAGS,
    R_SHUT_TS,
    R_SHUT_SEQ,
    R_NRST,
    R_LOST,
    R_AMBIGUOUS,
    R_RESET,
    R_START,
    R_START_SEQ,
    R_OPT_TS,
    R_OPT_SEQ,
    R_RW_TS,
    R_RW_SEQ,
    R_RST_IN,
    R_RST_IN_SEQ,
    R_RST_OUT,
    R_RST_OUT_SEQ,
    R_DROPPED,
    R_DROPPED_SEQ,
    R_BYTES,
    R_UEND,
    R_END,
    R_LOST_AFTER,
    R_HOW,
    R_SK,
    R_DETAIL,
    R_COLS,
) = range(68)

# G_: single values.
(
    G_LOST_UNTIL,
    G_OBJS,
    G_STRAY,
    G_OUT,
    G_LAST_TS,
    G_HAS_SENT,
    G_HAS_DONE,
    G_HAS_PACKETS,
    G_HAS_RELEASE,
    G_HAS_TRANSPORT,
    G_HAS_SIGNAL,
    G_HAS_CREDIT,
    G_HAS_LINGER,
    G_SIDES_CREDIT,
    G_FREE_OBJS,
    G_BYTES_FORGOTTEN,
    G_SIGNALS_FORGOTTEN,
    G_EPROBE_WRONG,
    G_LEFT,
    G_COLS,
) = range(20)


class Tables(NamedTuple):
    """The engine's state: single values, threads, open records, kernel sockets, sides of
    connections, their closes, sockets, descriptors, and what is told.
    """

    g: Any
    T: Any
    Q: Any
    K: Any
    S: Any
    E: Any
    O: Any  # noqa: E741
    F: Any
    out: Any
