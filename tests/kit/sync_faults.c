/* Loaded into a process under test: syncs of some files fail, as those of a dying disk do. The first syncs of each file below
 * $SYNC_FAULTS_AT (a part of the path) fail with EIO, until $SYNC_FAULTS_COUNT have; the kernel then forgets the error, so
 * later ones succeed. A file whose sync failed and that is synced again, without having been emptied, is believed from the
 * page cache: its path is appended to $SYNC_FAULTS_LOG. Failed syncs are appended too, after a minus sign. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES_MAX 4096
static struct { dev_t device; ino_t number; } failed[FILES_MAX];
static int failed_count, faults;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int (*system_function(const char *name))(int) { return (int (*)(int))dlsym(RTLD_NEXT, name); }

static void note(const char *mark, const char *path) {
    const char *log = getenv("SYNC_FAULTS_LOG");
    int file = log ? open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (file < 0) return;
    dprintf(file, "%s%s\n", mark, path);
    close(file);
}

static int find(const struct stat *found) {
    for (int at = 0; at < failed_count; at++)
        if (failed[at].device == found->st_dev && failed[at].number == found->st_ino) return at;
    return -1;
}

static int synced(int file, const char *function) {
    const char *at = getenv("SYNC_FAULTS_AT"), *count = getenv("SYNC_FAULTS_COUNT");
    char link[64], path[4096];
    struct stat found;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!at || !count || length < 0 || fstat(file, &found) != 0) return system_function(function)(file);
    path[length] = 0;
    if (!S_ISREG(found.st_mode) || !strstr(path, at)) return system_function(function)(file);
    pthread_mutex_lock(&lock);
    int known = find(&found), fails = known < 0 && faults < atoi(count) && failed_count < FILES_MAX;
    if (fails) {
        failed[failed_count].device = found.st_dev;
        failed[failed_count].number = found.st_ino;
        failed_count++;
        faults++;
        note("-", path);
    } else if (known >= 0) {
        note("", path);
    }
    pthread_mutex_unlock(&lock);
    if (fails) {
        errno = EIO;
        return -1;
    }
    return system_function(function)(file);
}

int fsync(int file) { return synced(file, "fsync"); }
int fdatasync(int file) { return synced(file, "fdatasync"); }

/* What has no name any more may lend its number to another file. */
static void forget(int folder, const char *path) {
    struct stat found;
    if (fstatat(folder, path, &found, AT_SYMLINK_NOFOLLOW) != 0 || found.st_nlink > 1) return;
    pthread_mutex_lock(&lock);
    int known = find(&found);
    if (known >= 0) failed[known] = failed[--failed_count];
    pthread_mutex_unlock(&lock);
}

int unlink(const char *path) {
    forget(AT_FDCWD, path);
    return ((int (*)(const char *))dlsym(RTLD_NEXT, "unlink"))(path);
}

int unlinkat(int folder, const char *path, int flags) {
    forget(folder, path);
    return ((int (*)(int, const char *, int))dlsym(RTLD_NEXT, "unlinkat"))(folder, path, flags);
}
