/* What the kernel answered once it will answer again, so it is asked once in a process. A sandbox
 * answers with an errno of its choice (EPERM, ENOSYS, EACCES); those of a call that exists are
 * EINTR and mistakes of the caller, which the second call finds too. */
#include "lib/net/epoll.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

#include "lib/base/clock.h"

static _Atomic bool coarse; /* there are only milliseconds */

int net_epoll_wait(int epoll_fd, struct epoll_event *ev, int max, int64_t ns)
{
	struct timespec ts = {.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
	int n;

	if (ns == 0 || ns == CLOCK_NEVER)
		return epoll_wait(epoll_fd, ev, max, ns == 0 ? 0 : -1);
	if (!atomic_load_explicit(&coarse, memory_order_relaxed)) {
		n = epoll_pwait2(epoll_fd, ev, max, &ts, NULL);
		if (n >= 0 || errno == EINTR)
			return n;
		atomic_store_explicit(&coarse, true, memory_order_relaxed);
	}
	return epoll_wait(epoll_fd, ev, max, clock_poll_ms(clock_now() + ns));
}
