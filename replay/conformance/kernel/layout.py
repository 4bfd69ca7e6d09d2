"""The columns and numbers that the conformance kernel and its caller agree on."""

from __future__ import annotations

NULL = -(1 << 63)
TOP = (1 << 63) - 1
PAGE = 4096

# --- events that matter here --------------------------------------------------------------------
(
    E_OTHER,
    E_IOCTL,
    E_IOCTL_RET,
    E_ARGS,
    E_IOPT,
    E_ATTR_TP,
    E_EPROBE,
    E_CALLEE_RET,
    E_FALLOCATE,
    E_MADVISE,
    E_SYSCALL_RET,
    E_GMEM_FALLOCATE,
    E_ENTRY,
    E_EXIT,
    E_EXEC,
    E_FORK,
    E_LOST,
    E_CLOSE,
    E_REQUEST,
    E_DIRTY,
    E_VIRTIO_MEM,
    E_REGION,
    E_MMAP,
    E_MMAP_RET,
) = range(24)

# --- a batch of events: b[column, event] --------------------------------------------------------
(
    B_EV,
    B_TS,
    B_SEQ,
    B_THREAD,
    B_ADDR,
    B_SIZE,
    B_VADDR,
    B_OFFSET,
    B_FLAGS,
    B_ATTR,
    B_RET,
    B_FD,
    B_CMD,
    B_ID,
    B_ARGSZ,
    B_COUNT,
    B_UNTIL,
) = range(17)
B_COLS = 17

# --- calls, one a row; neighbouring 4 KiB maps are one row ---------------------------------------
(
    K_NONE,
    K_ATTR,
    K_MAP,
    K_UNMAP,
    K_PUNCH,  # of guest_memfd
    K_DISCARD,  # of the shared side
    K_RUN,
    K_EXIT,
    K_SLOT,
    K_CONTAINER,  # a container, or an IO address space, begins
    K_CREATE_VM,
    K_CLOSE,
    K_LOST,
    K_REQUEST,  # QEMU says that it was asked for a conversion
    K_DIRTY,  # QEMU asks which pages a device wrote
    K_VIRTIO_MEM,  # QEMU says what the guest asks of virtio-mem: C_FLAG which, C_SIZE blocks
    K_REGION,  # QEMU's VFIO listener sees a region: C_FLAG 1 come, 0 gone
    K_MMAP,  # of the process: C_FLAG MAP_ flags
) = range(18)

(
    C_KIND,
    C_THREAD,
    C_PROC,
    C_SPACE,
    C_ADDR,
    C_SIZE,
    C_VADDR,
    C_FLAG,  # attributes: 1 to private; a slot: its flags
    C_RET,
    C_TS0,
    C_TS1,
    C_SEQ0,
    C_SEQ1,
    C_COUNT,  # map calls in the row; a slot: pages that its memory is made of
    C_KNOWN,  # arguments are known
) = range(15)
C_COLS = 15
ANY_PAGES, BASE_PAGES, HUGE_PAGES = 1, 2, 3  # ANY_PAGES: the trace does not say

# --- a thread's open frame, and its open run of maps --------------------------------------------
(
    F_OPEN,
    F_CMD,
    F_FD,
    F_TS,
    F_SEQ,
    F_RANK,
    F_ADDR,
    F_SIZE,
    F_VADDR,
    F_FLAGS,
    F_ATTR,
    F_ID,
    F_CALLEE,
    F_CALLEE_TS,
    F_GMEM,
    F_ARGSZ,
    F_TP_ADDR,
    F_TP_SIZE,
    F_RAN,
    F_PROC,
    F_RUNNING,  # of thread 0: 1 + the thread whose run of maps may go on; there is one at most
    F_LOST_UNTIL,  # of thread 0: events before this moment are left out
) = range(22)
F_COLS = 22 + C_COLS  # behind: the run
O_IOCTL, O_FALLOCATE, O_MADVISE, O_EPROBE, O_MMAP = 1, 2, 3, 4, 5

# --- pages of a process: 0 nothing known ---------------------------------------------------------
PRIVATE, SHARED, UNMAPPED = 1, 2, 3  # UNMAPPED: shared in the bitmap, and mapping it failed
CHUNK_SHIFT = 15  # pages in a chunk: 128 MiB of memory
CHUNK = 1 << CHUNK_SHIFT
H_KEY, H_UNIFORM, H_ROW = 0, 1, 2

# --- generations ---------------------------------------------------------------------------------
V4, MERGED, SOURCES = 0, 1, 2

# --- what comes out: one row for each conversion that conforms not, or is worth a word -----------
(
    D_WHAT,  # DIVERGES, a hazard, or UNDECIDED
    D_GEN,
    D_PROC,
    D_THREAD,
    D_SPACE,
    D_ADDR,
    D_SIZE,
    D_PRIVATE,
    D_EXPECTED,  # kind, address, size
    D_EXPECTED_ADDR,
    D_EXPECTED_SIZE,
    D_GOT,  # row of the call that differs, -1: none came
    D_FIRST,
    D_COUNT,
    D_REASON,
    D_HUGE,  # the shared side is of huge pages
) = range(16)
D_COLS = 16

(
    W_DIVERGES,
    W_UNDECIDED,
    W_RETRY,  # shared already in the bitmap: nothing is mapped
    W_ATTRIBUTE_KEPT,  # the attribute stays when the state change fails
    W_UNMAP_IGNORED,  # an unmap failed, and the conversion went on
    W_FOREIGN_ROLLBACK,  # the rollback unmapped what another listener had mapped
    W_LISTENERS_APART,  # a listener before the one that refused keeps its mappings
    W_SHIFTED,  # behind a hole the range is shifted
    W_PAST_END,  # past the end of its memory, the attribute changed all the same
    W_SLOT_AGAIN,  # a slot is made again over shared pages
    W_ROLLED_BACK,  # v4: undone in forward order
    W_ENDS_QEMU,  # a failure that QEMU does not survive
    W_ABSENT_UNMAP,  # iommufd: ENOENT is taken for success over mapped pages
    W_REPLAY,  # a listener's registration does not map what is shared
    W_REPLAY_ENDS_QEMU,  # a map of a registration failed, and QEMU exits
    W_REPLAY_SHORT,  # a map of a registration failed, and the listener stays
    W_LIMIT_LEFT,  # more DMA mappings could be needed than there are: refused, and left mapped
    W_UNREGISTERED_OTHERS,  # unregistering unmapped what another listener had mapped
    W_DIRTY_AT_ZERO,  # a dirty query of a replayed range goes to address 0
    W_KEPT,  # the shared side was not discarded, as is right if it is of huge pages
    W_BASE,  # it is not: what was told of D_REASON's memory as W_KEPT diverges
) = range(21)

(
    Y_LOSS,
    Y_END,
    Y_LATE,
    Y_ARGUMENTS,
    Y_CONCURRENT,
    Y_CONTAINERS,
    Y_REQUEST,
    Y_MEMORY,
) = range(8)

# --- counters ------------------------------------------------------------------------------------
N_CONFORM, N_DIVERGE, N_TELLING, N_SLOTS, N_OWED, N_REPLAYED = range(6)
N_REASON = 6
N_COLS = N_REASON + 8
