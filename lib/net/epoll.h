/* epoll_wait with a limit in nanoseconds. */
#ifndef PD_NET_EPOLL_H
#define PD_NET_EPOLL_H

#include <stdint.h>
#include <sys/epoll.h>

/*
 * As epoll_wait(2), with a limit of ns nanoseconds; CLOCK_NEVER: none. Where the kernel has no
 * epoll_pwait2 (before Linux 5.11), or a sandbox forbids it, the limit is rounded up to a
 * millisecond. -1 with errno. Thread-safe.
 */
int net_epoll_wait(int epoll_fd, struct epoll_event *ev, int max, int64_t ns);

#endif
