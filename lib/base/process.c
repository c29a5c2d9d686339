/*
 * About process_trim: the dynamic loader reads every relocation of some forty libraries, most of
 * which a router never calls; several megabytes stay resident for nothing. Writable segments are
 * left alone: what was relocated in them exists nowhere else.
 */
#include "lib/base/process.h"

#include <link.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/clock.h"

static int trim_object(struct dl_phdr_info *info, size_t size, void *arg)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);

	(void)size;
	(void)arg;
	for (unsigned i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
		uintptr_t from = (info->dlpi_addr + ph->p_vaddr) & ~(page - 1),
			  to = info->dlpi_addr + ph->p_vaddr + ph->p_memsz;

		if (ph->p_type == PT_LOAD && !(ph->p_flags & PF_W))
			(void)madvise((void *)from, to - from, MADV_DONTNEED);
	}
	return 0;
}

void process_trim(void)
{
	(void)dl_iterate_phdr(trim_object, NULL);
}

/* By the wall clock, because ThreadSanitizer does not know of pthread_clockjoin_np: a wait that a
 * changed clock makes longer or shorter does no harm here. */
bool process_join(pthread_t thread, int64_t deadline)
{
	int64_t wall = clock_wall() + deadline - clock_now();
	struct timespec ts = {.tv_sec = wall / NS_PER_S, .tv_nsec = wall % NS_PER_S};

	return pthread_timedjoin_np(thread, NULL, &ts) == 0;
}
