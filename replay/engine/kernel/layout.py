"""Where everything lies in the engine's integer arrays, and the engine's event codes.

All state is in numpy arrays, so that compiled and plain code share it and a checkpoint is a copy.
Pages are 4 KiB; a page number is an address >> 12.
"""

from __future__ import annotations

from typing import Any, NamedTuple

NULL = -(1 << 63)
"""A null in an integer column (no address, size or descriptor has this value)."""

CHUNK_BITS = 18
CHUNK = 1 << CHUNK_BITS
"""Pages in a chunk: 1 GiB."""
PART_BITS = 9
PART = 1 << PART_BITS
"""Pages in a part of a chunk: 2 MiB."""
PARTS = CHUNK // PART
ROWS_A_CALL = 1 << 16
"""Most runs of pages that one call can be reported with."""
MOST_WATCHES = 1 << 19
"""Most rows of watches and of records; a trace that needs more has its planes forgotten."""
MAX_CHUNKS = 1 << 16
"""A range of more chunks (64 TiB) is no range that a machine has: what it covers becomes
unknown."""
MOST_ROWS = 1 << 14
"""Rows of parts or pages that are made ready for one event at most."""
MOST_WORK = 1 << 33
"""Pages that are walked at most, in a whole trace, for calls that may have touched any page."""

# --- engine event codes -------------------------------------------------------------------------
(
    EV_OTHER,
    EV_IOCTL,
    EV_IOCTL_RET,
    EV_ARGS_EPROBE,
    EV_ARGS_TYPE1,
    EV_ARGS_KVM,
    EV_ARGS_IOMMUFD,
    EV_ARGS_IOPT,
    EV_ARGS_IOPT_FILE,
    EV_CALLEE_RET,
    EV_IOPT_RET,
    EV_ATTR_TP,
    EV_POST,
    EV_GMEM_FALLOCATE,
    EV_MAP,
    EV_UNMAP,
    EV_FALLOCATE,
    EV_MADVISE,
    EV_MMAP,
    EV_MUNMAP,
    EV_OPEN,
    EV_CLOSE,
    EV_RET,
    EV_RUN,
    EV_FORK,
    EV_EXEC,
    EV_EXIT,
    EV_LOST,
    EV_DOMAIN_FREED,
    EV_MAP_CALLED,
    EV_UNMAP_HVA,
    EV_MEMSLOT,
) = range(32)

# --- operations ---------------------------------------------------------------------------------
(
    OP_NONE,
    OP_ATTR,
    OP_MAP,
    OP_UNMAP,
    OP_DISCARD,
    OP_POPULATE,
    OP_RUN,
    OP_SLOT,
    OP_DESTROY,
    OP_VFIO_OTHER,
    OP_CREATE_VM,
    OP_SET_IOMMU,
    OP_IOAS_ALLOC,
    OP_CREATE_GMEM,
    OP_MMAP,
    OP_MUNMAP,
    OP_OPEN,
    OP_CLOSE,
    OP_MAP_FILE,
    OP_GMEM_ATTR,
) = range(20)

# --- mapping plane: bits of a page (uint32) -----------------------------------------------------
M_KI = 1  # translation known
M_I = 2  # translated: iommu:map seen
M_KE = 4  # entry known
M_E = 8  # entered: held by a successful map call
M_FIRST = 16  # first page of an entry
M_COUNT = 32 | 64  # translations beyond the first (several domains), saturating
M_COUNT_ONE = 32
M_W101 = 128  # watched by an open TK101 row
M_W102 = 256
M_W103 = 512
M_W104 = 1024
M_WATCHED = M_W101 | M_W102 | M_W103
M_C = 2048  # covered: the container is to follow what becomes of the page (TK104)
M_DELTA_SHIFT = 12
M_DELTA = 0xFFFFF000
MOST_BACKINGS = 1 << 20
M_STATE = M_KI | M_I | M_KE | M_E | M_FIRST | M_COUNT

# --- attribute plane: bits of a page (uint8) ----------------------------------------------------
A_K = 1
A_P = 2
A_W = 4  # the last change made it shared, and it was private; or private, and it was not

# --- transforms of a page (planes.apply_map) ----------------------------------------------------
(
    X_MAP_EVENT,
    X_UNMAP_EVENT,
    X_ENTER,
    X_LEAVE,
    X_FORGET,
    X_FORGET_ENTRY,
    X_UNTRANSLATE,
    X_SET,
    X_CLEAR,
    X_NONE,
    X_UNCOVER,
) = range(11)

# --- threads: T[thread, column] -----------------------------------------------------------------
(
    T_PROC,
    T_STATE,
    T_CALL,
    T_OP,
    T_ENTER,
    T_ENTER_SEQ,
    T_FD,
    T_CMD,
    T_RANK,
    T_ADDR,
    T_SIZE,
    T_VADDR,
    T_OFFSET,
    T_FILE_FD,
    T_ID,
    T_FLAGS,
    T_ATTR,
    T_OBJECT,
    T_RET,
    T_RET_TS,
    T_RET_GAP,
    T_COMMIT,
    T_COMMIT_SEQ,
    T_FIRST_MAP,
    T_FIRST_MAP_SEQ,
    T_EV_LO,
    T_EV_HI,
    T_EV_SPACE,
    T_COUNTED,
    T_TP_ADDR,
    T_TP_SIZE,
    T_TP_ATTR,
    T_OPEN_WATCHES,
    T_RUN,
    T_RUN_OP,
    T_GMEM,
    T_SPACE,
    T_EXITED,
    T_TID,
    T_ENTERED,
    T_EPROBED,
    T_NESTED,
    T_CV_DIR,  # the conversion in hand: CV_ below
    T_CV_R0,  # pages of it that were rolled back
    T_CV_R1,
    T_CV_COMMIT,
    T_CV_VM,
    T_CV_LO,
    T_CV_HI,
    T_CV_DONE,  # its ATTR's return
    T_CV_SEQ,  # its ATTR's entry
    T_CV_DISCARDED,
    T_CV_ERRNO,  # the failed call's; 0: none failed
    T_CV_FAILED,  # its entry
    T_CV_FAILED_RET,
    T_CV_FAILED_SEQ,
    T_CV_SPACE,  # its container; -1: those of the thread's unmaps
    T_COLS,
) = range(58)
CV_NONE, CV_SHARED, CV_PRIVATE, CV_REFUSED = range(4)
"""Direction of a conversion in hand; refused: to private, after its unmaps."""
STATE_NONE, STATE_FRAME, STATE_UNKNOWN = 0, 1, 2

# --- processes: P[process, column] --------------------------------------------------------------
(
    P_PARENT,
    P_OPEN,
    P_LAST_RETURN,
    P_LAST_GAP,
    P_BORN,
    P_IOAS_BORN,
    P_EXIT,
    P_LAST_UNMAP,
    P_LAST_MAP_RETURN,
    P_LAST_MAP_THREAD,
    P_FRESH,
    P_LEAK_DONE,
    P_GMEM_ATTR,
    P_HAS_VM,
    P_END,
) = range(T_COLS, T_COLS + 15)

# --- spaces: S[space, column]: a VM's attributes or a container's mappings ---------------------
(
    S_KIND,
    S_PROC,
    S_FD,
    S_ID,
    S_OBJECT,
    S_DEFAULT,
    S_DEAD,
    S_DOMAIN,
    S_KVM,
    S_MULTI,
    S_VIOMMU,
    S_ENTRIES,  # of a type1 container; NULL: not known
    S_PEAK,
    S_HIGH,  # when the entries first came near the limit, and by which event
    S_HIGH_SEQ,
    S_COLS,
) = range(16)
SPACE_VM, SPACE_CONTAINER = 0, 1

# --- watches and records: W[row, column], OUT[row, column] --------------------------------------
(
    W_KIND,
    W_STATE,
    W_PROC,
    W_SPACE,
    W_THREAD,
    W_P0,
    W_P1,
    W_LO,
    W_HI,
    W_REM,
    W_FROM,
    W_CREATED,
    W_CONF,
    W_SEV,
    W_UNTIL,
    W_SEQ0,
    W_SEQ1,
    W_SEQ2,
    W_SEQ3,
    W_GROUP,
    W_RULE,
    W_ERRNO,
    W_VM,
    W_ADDR,
    W_SIZE,
    W_COLS,
) = range(26)
ACTIVE = W_COLS
OUT0 = W_COLS + 1
W_WIDTH = 2 * W_COLS + 1
W_CANDIDATE, W_FLAGGED = 0, 1
ERROR, WARNING, NOTE, UNDECIDED = 0, 1, 2, 3
CERTAIN, LIKELY, POSSIBLE = 0, 1, 2
# rules that end a conversion or request (W_RULE)
R_NONE, R_DISCARD, R_RUN, R_EXIT, R_ATTR, R_GRACE, R_MAP, R_POPULATE, R_END, R_CALL = range(10)

# --- relations: R[row]: vaddr range of a process backed by a file; D[row]: backing of DMA entries -
R_PROC, R_FD, R_VADDR, R_SIZE, R_OFFSET, R_FLAGS, R_END = range(S_COLS, S_COLS + 7)
D_PROC, D_KIND, D_FD, D_DELTA, D_END = range(R_END, R_END + 5)
GM_PROC, GM_FD, GM_SIZE, GM_END = range(D_END, D_END + 4)
# memory slots of a VM (a space); pages that a thread unmapped since it last ran or converted
(
    L_VM,
    L_ID,
    L_GPA,
    L_SIZE,
    L_VADDR,
    L_FLAGS,
    L_GMEM,
    L_OFFSET,
    L_END,
) = range(GM_END, GM_END + 9)
U_THREAD, U_SPACE, U_P0, U_P1 = range(L_END, L_END + 4)
U_REFUSED = U_P1 + 1  # it was for the change that was refused and is in hand
U_END = U_REFUSED + 1
# what was done while another thread's call was under way (meanwhile.py)
(
    N_OP,
    N_THREAD,
    N_SPACE,
    N_P0,
    N_P1,
    N_BEGAN,
    N_ENDED,
    N_SEQ,
    TABLE_COLS,
) = range(U_END, U_END + 9)
MOST_MEANWHILE = 4096
MOST_UNMAPS = 4096
"""Unmaps that are remembered at most, of all threads."""
ENTRY_LIMIT = 65_535
"""vfio_iommu_type1's dma_entry_limit, unless the host set another one."""
ENTRIES_HIGH = 58_982
"""Nine tenths of it."""

# --- globals: g[...] ----------------------------------------------------------------------------
(
    G_SPACES,
    G_CHUNKS,
    G_CT,  # rows of ct, mm and am ever used, and the first of those that are free again, plus 1
    G_CT_FREE,
    G_MM,
    G_MM_FREE,
    G_AM,
    G_AM_FREE,
    G_ACTIVE,
    G_WFREE,
    G_WTOP,
    G_OUT,
    G_R,
    G_D,
    G_GROUP,
    G_LOSS_UNTIL,
    G_REMAINING,
    G_NEED,
    G_LAST_TS,
    G_GMEM,
    G_ROWS,
    G_SLOTS,
    G_U,
    G_N,
    G_N_FULL,  # something that was done meanwhile is not there
    G_LOST,
    G_CONTAINERS,
    G_FULL,  # there was no room for something: what was done since the event began is void
    G_WORK,
    G_DENSE,
    G_THREADS,  # rows of T that are in use
    G_COLS,
) = range(32)
# --- configuration: cfg[...] --------------------------------------------------------------------
(
    C_GRACE,
    C_HAS_MAP,
    C_HAS_UNMAP,
    C_HAS_POST,
    C_HAS_IOCTL,
    C_HAS_DISCARD,
    C_VIOMMU,
    C_IN_PLACE,
    C_SWITCH,  # work from which GROW_SPEED is asked for
    C_END,
) = range(G_COLS, G_COLS + 10)
# --- judged: J[code, reason]; disagreements: N[...] ---------------------------------------------
(
    J_101,
    J_102,
    J_103,
    J_104,
    J_105,
    J_106,
    J_107,
    J_108,
    J_109,
    J_110,
    J_111,
    J_202,
    J_ROWS,
) = range(13)
(
    Y_DECIDED,
    Y_LOSS,
    Y_END,
    Y_LATE,
    Y_UNKNOWN_ARGS,
    Y_NO_ATTR,
    Y_BACKING,
    Y_NO_UNMAP,
    Y_SEVERAL,
    Y_VIOMMU,
    Y_GMEM,
    Y_LIMIT,
    Y_COLS,
) = range(13)
N_EPROBE_OVERRULED, N_EPROBE_UNKNOWN, N_ATTR_UNKNOWN, N_END = range(C_END, C_END + 4)
J0 = N_END
G_SIZE = J0 + J_ROWS * Y_COLS

# --- what a call needs grown before it can go on (run()'s second result) ------------------------
GROW_NONE, GROW_CHUNKS, GROW_DENSE, GROW_WATCHES, GROW_TABLES, GROW_SPEED = range(6)


CK_KEY, CK_VAL, CK_PARTS, CK_COLS = range(4)


class State(NamedTuple):
    """The engine's arrays: few, because each costs compile time in every function that takes them.

    ``g``: globals, configuration, counters. ``T``: threads and (same row number) processes. ``S``:
    spaces, address relations, backings, guest_memfds, each in columns of its own. ``W``: watches,
    their list of active rows, and records. ``ck``: hash of chunks (key: space << 36 | chunk
    number; the last row is never looked up). ``ct``: a row for each chunk that has not one value:
    the value of each of its PARTS, or ~ a row of single pages. All int64, but those: ``mm``
    (uint32) and ``am`` (uint8), PART pages each. The last row of ``ct``, ``mm`` and ``am`` is what
    is written to when there is no room (G_FULL).
    """

    g: Any
    T: Any
    S: Any
    W: Any
    ck: Any
    ct: Any
    mm: Any
    am: Any


# --- a batch of events: b[column, event], int64, nulls are NULL ---------------------------------
(
    B_TS,
    B_SEQ,
    B_EV,
    B_THREAD,
    B_FD,
    B_CMD,
    B_ADDR,
    B_VADDR,
    B_OFFSET,
    B_SIZE,
    B_FLAGS,
    B_ATTR,
    B_RET,
    B_OBJ,
    B_FILE_FD,
    B_ID,
    B_ARGSZ,
    B_UNTIL,
    B_PROC,
    B_COLS,
) = range(20)
