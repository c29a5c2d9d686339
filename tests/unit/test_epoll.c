/* net_epoll_wait where the kernel knows epoll_pwait2, and where a sandbox forbids it. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/net/epoll.h"

/* From here on epoll_pwait2 fails with `error` in this process. */
static bool forbid(unsigned error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_epoll_pwait2, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0 &&
	       syscall(SYS_epoll_pwait2, -1, NULL, 1, NULL, NULL, 8) < 0 && errno == (int)error;
}

/* 0, or the number of the step that failed. */
static int use_it(void)
{
	struct epoll_event ev = {.events = EPOLLIN};
	int fd[2], epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	int64_t begun;

	if (epoll_fd < 0 || pipe(fd) < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd[0], &ev) < 0)
		return 1;
	for (int i = 0; i < 3; i++) {
		begun = clock_now();
		if (net_epoll_wait(epoll_fd, &ev, 1, NS_PER_MS + NS_PER_MS / 4) != 0)
			return 2;
		if (clock_now() - begun < NS_PER_MS + NS_PER_MS / 4)
			return 3;
	}
	if (net_epoll_wait(epoll_fd, &ev, 1, 0) != 0)
		return 4;
	if (write(fd[1], "x", 1) != 1)
		return 5;
	if (net_epoll_wait(epoll_fd, &ev, 1, 20 * NS_PER_S) != 1)
		return 6;
	if (net_epoll_wait(epoll_fd, &ev, 1, CLOCK_NEVER) != 1)
		return 7;
	(void)close(fd[0]);
	(void)close(fd[1]);
	(void)close(epoll_fd);
	errno = 0;
	return net_epoll_wait(epoll_fd, &ev, 1, NS_PER_MS) == -1 && errno == EBADF ? 0 : 8;
}

#define NO_SANDBOX 77

static void limits_hold_with_and_without_the_call(void **state)
{
	static const unsigned errors[] = {0, ENOSYS, EPERM, EACCES};

	(void)state;
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		int status = 0;
		pid_t child = fork();

		if (child == 0)
			_exit(errors[i] && !forbid(errors[i]) ? NO_SANDBOX : use_it());
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFEXITED(status));
		if (WEXITSTATUS(status) == NO_SANDBOX)
			skip();
		assert_int_equal(WEXITSTATUS(status), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(limits_hold_with_and_without_the_call),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
