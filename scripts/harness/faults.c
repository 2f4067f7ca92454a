/* Counts the calls that change files below FAULT_ROOT, over all processes of a command, and fails
 * the FAULT_AT-th: by SIGKILL of the whole process group, or with an errno.
 *
 *   FAULT_ROOT     only files below this folder count
 *   FAULT_COUNTER  a file of eight bytes that all processes share
 *   FAULT_AT       the number of the call at which the fault happens, from 1; 0 counts only
 *   FAULT_ACTION   kill | enospc (this call and all later ones that need space) | eio (this call)
 *                  | stop (this process waits for a SIGCONT before this call)
 *
 * Loaded by LD_PRELOAD: git, its shell and Python are seen, git-lfs (Go, no libc) is not.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static _Atomic long *counter;
static const char *root;
static long fault_at;
static enum { KILL, ENOSPC_, EIO_, STOP } action;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("FAULT_COUNTER"), *what = getenv("FAULT_ACTION");
    root = getenv("FAULT_ROOT");
    if (!path || !root) return;
    int (*open_)(const char *, int, ...) = real("open");
    int fd = open_(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *page = mmap(NULL, sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page == MAP_FAILED) return;
    counter = page;
    fault_at = getenv("FAULT_AT") ? atol(getenv("FAULT_AT")) : 0;
    action = what && !strcmp(what, "enospc") ? ENOSPC_
           : what && !strcmp(what, "eio")    ? EIO_
           : what && !strcmp(what, "stop")   ? STOP
                                             : KILL;
}

/* Count one call; returns whether it must fail. `grows` says that it needs space on the disk. */
static int strikes(int grows) {
    long now = atomic_fetch_add(counter, 1) + 1;
    if (!fault_at || now < fault_at) return 0;
    if (action == KILL) {
        kill(0, SIGKILL);
        pause();
    }
    if (action == ENOSPC_ && grows) { errno = ENOSPC; return 1; }
    if (action == STOP && now == fault_at) kill(getpid(), SIGSTOP);
    if (action == EIO_ && now == fault_at) { errno = EIO; return 1; }
    return 0;
}

static int below(const char *path) { return !strncmp(path, root, strlen(root)); }

static int path_counts(int folder, const char *path) {
    char full[PATH_MAX], link[64];
    if (!counter || !path) return 0;
    if (path[0] == '/') return below(path);
    if (folder == AT_FDCWD) return getcwd(full, sizeof full) && below(full);
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t n = readlink(link, full, sizeof full - 1);
    if (n < 0) return 0;
    full[n] = 0;
    return below(full);
}

static int fd_counts(int fd) {
    struct stat st;
    int saved = errno;
    int counts = counter && !fstat(fd, &st) && S_ISREG(st.st_mode) && path_counts(fd, ".");
    errno = saved;
    return counts;
}

#define PATH_CALL(type, name, args, pass, folder, path, grows)                                     \
    type name args {                                                                               \
        type(*call) args = real(#name);                                                            \
        if (path_counts(folder, path) && strikes(grows)) return -1;                                \
        return call pass;                                                                          \
    }
#define FD_CALL(type, name, args, pass, grows)                                                     \
    type name args {                                                                               \
        type(*call) args = real(#name);                                                            \
        if (fd_counts(fd) && strikes(grows)) return -1;                                            \
        return call pass;                                                                          \
    }

PATH_CALL(int, rename, (const char *a, const char *b), (a, b), AT_FDCWD, b, 0)
PATH_CALL(int, renameat, (int d, const char *a, int e, const char *b), (d, a, e, b), e, b, 0)
PATH_CALL(int, link, (const char *a, const char *b), (a, b), AT_FDCWD, b, 1)
PATH_CALL(int, linkat, (int d, const char *a, int e, const char *b, int f), (d, a, e, b, f), e, b, 1)
PATH_CALL(int, unlink, (const char *a), (a), AT_FDCWD, a, 0)
PATH_CALL(int, unlinkat, (int d, const char *a, int f), (d, a, f), d, a, 0)
PATH_CALL(int, mkdir, (const char *a, mode_t m), (a, m), AT_FDCWD, a, 1)
PATH_CALL(int, mkdirat, (int d, const char *a, mode_t m), (d, a, m), d, a, 1)
FD_CALL(ssize_t, write, (int fd, const void *b, size_t n), (fd, b, n), 1)
FD_CALL(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n), 1)
FD_CALL(ssize_t, pwrite, (int fd, const void *b, size_t n, off_t o), (fd, b, n, o), 1)
FD_CALL(ssize_t, pwrite64, (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o), 1)
FD_CALL(int, ftruncate, (int fd, off_t n), (fd, n), 1)
FD_CALL(int, ftruncate64, (int fd, off64_t n), (fd, n), 1)
FD_CALL(int, fsync, (int fd), (fd), 0)
FD_CALL(int, fdatasync, (int fd), (fd), 0)

#define CREATES(flags) ((flags) & (O_CREAT | O_TRUNC))
#define OPEN(name, folder_arg, folder, pass)                                                       \
    int name(folder_arg const char *path, int flags, ...) {                                        \
        int (*call)(folder_arg const char *, int, ...) = real(#name);                              \
        mode_t mode = 0;                                                                           \
        if (flags & (O_CREAT | O_TMPFILE)) {                                                       \
            va_list rest;                                                                          \
            va_start(rest, flags);                                                                 \
            mode = va_arg(rest, mode_t);                                                           \
            va_end(rest);                                                                          \
        }                                                                                          \
        if (CREATES(flags) && path_counts(folder, path) && strikes(1)) return -1;                  \
        return call pass;                                                                          \
    }
#define COMMA ,
OPEN(open, , AT_FDCWD, (path, flags, mode))
OPEN(open64, , AT_FDCWD, (path, flags, mode))
OPEN(openat, int folder COMMA, folder, (folder, path, flags, mode))
OPEN(openat64, int folder COMMA, folder, (folder, path, flags, mode))
