/*
 * A switch saves the registers that a callee must preserve and changes the stack pointer: some
 * nanoseconds, no system call. (swapcontext of the C library saves the signal mask, a system call
 * per switch; it serves where there is no assembly below.)
 */
#include "lib/net/fiber.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define WITH_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WITH_TSAN 1
#endif
#endif

#ifdef WITH_ASAN
#include <pthread.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef WITH_TSAN
#include <sanitizer/tsan_interface.h>
#endif

#define TRIM_SLACK                                                                                 \
	1024 /* below the stack pointer: the red zone and what fiber_trim itself uses              \
	      */

static void begin(void *arg);

#if defined(__x86_64__) || defined(__aarch64__)

/* Saves where we are in *save and goes on at `load`. */
void pd_fiber_swap(void **save, void *load);

#ifdef __x86_64__
__asm__(".text\n.p2align 4\n.globl pd_fiber_swap\n.hidden pd_fiber_swap\n"
	".type pd_fiber_swap,@function\npd_fiber_swap:\n"
	"pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
	"movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
	"popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\n"
	"ret\n.size pd_fiber_swap,.-pd_fiber_swap\n"
	/* The first entry: the argument lies in a saved register, and there is no caller. */
	".p2align 4\n.globl pd_fiber_entry\n.hidden pd_fiber_entry\n"
	".type pd_fiber_entry,@function\npd_fiber_entry:\n"
	"xorl %ebp,%ebp\nmovq %r12,%rdi\ncall *%r13\nud2\n"
	".size pd_fiber_entry,.-pd_fiber_entry\n");
#define SAVED_WORDS 7 /* six registers and the address to return to */
#define ARG_WORD    3 /* r12 */
#define CALL_WORD   2 /* r13 */
#define ENTRY_WORD  6
#else
__asm__(".text\n.p2align 4\n.globl pd_fiber_swap\n.hidden pd_fiber_swap\n"
	".type pd_fiber_swap,%function\npd_fiber_swap:\n"
	"sub sp,sp,#160\n"
	"stp x19,x20,[sp,#0]\nstp x21,x22,[sp,#16]\nstp x23,x24,[sp,#32]\n"
	"stp x25,x26,[sp,#48]\nstp x27,x28,[sp,#64]\nstp x29,x30,[sp,#80]\n"
	"stp d8,d9,[sp,#96]\nstp d10,d11,[sp,#112]\nstp d12,d13,[sp,#128]\nstp d14,d15,[sp,#144]\n"
	"mov x9,sp\nstr x9,[x0]\nmov sp,x1\n"
	"ldp x19,x20,[sp,#0]\nldp x21,x22,[sp,#16]\nldp x23,x24,[sp,#32]\n"
	"ldp x25,x26,[sp,#48]\nldp x27,x28,[sp,#64]\nldp x29,x30,[sp,#80]\n"
	"ldp d8,d9,[sp,#96]\nldp d10,d11,[sp,#112]\nldp d12,d13,[sp,#128]\nldp d14,d15,[sp,#144]\n"
	"add sp,sp,#160\nret\n.size pd_fiber_swap,.-pd_fiber_swap\n"
	".p2align 4\n.globl pd_fiber_entry\n.hidden pd_fiber_entry\n"
	".type pd_fiber_entry,%function\npd_fiber_entry:\n"
	"mov x29,#0\nmov x0,x19\nblr x20\nbrk #0\n"
	".size pd_fiber_entry,.-pd_fiber_entry\n");
#define SAVED_WORDS 20
#define ARG_WORD    0  /* x19 */
#define CALL_WORD   1  /* x20 */
#define ENTRY_WORD  11 /* x30 */
#endif
void pd_fiber_entry(void);

static int first_frame(struct fiber_stack *f)
{
	/* 16-byte alignment where pd_fiber_entry begins. */
	uintptr_t top = ((uintptr_t)f->base + f->size) & ~(uintptr_t)15;
	uintptr_t *frame = (uintptr_t *)top - 2 - (SAVED_WORDS + (SAVED_WORDS & 1));

#ifdef __x86_64__
	frame++; /* the address that `ret` takes away */
#endif
	memset(frame, 0, SAVED_WORDS * sizeof(*frame));
	frame[ARG_WORD] = (uintptr_t)f;
	frame[CALL_WORD] = (uintptr_t)begin;
	frame[ENTRY_WORD] = (uintptr_t)pd_fiber_entry;
	f->sp = frame;
	return PD_OK;
}

static void swap(struct fiber_stack *from, struct fiber_stack *to)
{
	pd_fiber_swap(&from->sp, to->sp);
}

static void drop_frame(struct fiber_stack *f)
{
	(void)f;
}

#else
#include <ucontext.h>

static void begin_halves(unsigned high, unsigned low)
{
	begin((void *)((uintptr_t)high << 16 << 16 | low));
}

static int first_frame(struct fiber_stack *f)
{
	ucontext_t *u = calloc(1, sizeof(*u));
	uintptr_t arg = (uintptr_t)f;

	if (!u || getcontext(u) < 0) {
		free(u);
		return PD_ENOMEM;
	}
	u->uc_stack.ss_sp = f->base;
	u->uc_stack.ss_size = f->size;
	makecontext(u, (void (*)(void))begin_halves, 2, (unsigned)(arg >> 16 >> 16), (unsigned)arg);
	f->sp = u;
	return PD_OK;
}

static void swap(struct fiber_stack *from, struct fiber_stack *to)
{
	ucontext_t here;

	if (!from->entry) /* the thread's own; entered again before this frame ends */
		/* cppcheck-suppress autoVariables */
		from->sp = &here;
	(void)swapcontext(from->sp, to->sp);
}

static void drop_frame(struct fiber_stack *f)
{
	free(f->sp);
}
#endif

/* -- what the sanitizers want to know -- */

static void leaving(struct fiber_stack *from, const struct fiber_stack *to)
{
#ifdef WITH_ASAN
	__sanitizer_start_switch_fiber(&from->asan_fake, to->base, to->size ? to->size : 1);
#endif
#ifdef WITH_TSAN
	__tsan_switch_to_fiber(to->tsan, 0);
#endif
	(void)from;
	(void)to;
}

static void arrived(struct fiber_stack *self)
{
#ifdef WITH_ASAN
	__sanitizer_finish_switch_fiber(self->asan_fake, NULL, NULL);
#endif
	(void)self;
}

static void begin(void *arg)
{
	struct fiber_stack *f = arg;

	arrived(f);
	f->entry(f->arg);
	__builtin_trap();
}

void fiber_stack_thread(struct fiber_stack *t)
{
	*t = (struct fiber_stack){.sp = NULL};
#ifdef WITH_ASAN
	pthread_attr_t attr;
	size_t size = 0;

	if (pthread_getattr_np(pthread_self(), &attr) == 0) {
		(void)pthread_attr_getstack(&attr, &t->base, &size);
		(void)pthread_attr_destroy(&attr);
	}
	t->size = size;
#endif
#ifdef WITH_TSAN
	t->tsan = __tsan_get_current_fiber();
#endif
}

int fiber_stack_init(struct fiber_stack *f, size_t size, void (*entry)(void *), void *arg)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *map;

	size = (size + page - 1) & ~(page - 1);
	map = mmap(NULL, size + page, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
	if (map == MAP_FAILED)
		return PD_ENOMEM;
	*f = (struct fiber_stack){.base = map + page, .size = size, .entry = entry, .arg = arg};
	if (mprotect(map, page, PROT_NONE) < 0 || first_frame(f) != PD_OK) {
		(void)munmap(map, size + page);
		return PD_ENOMEM;
	}
#ifdef WITH_TSAN
	f->tsan = __tsan_create_fiber(0);
#endif
	return PD_OK;
}

void fiber_stack_release(struct fiber_stack *f)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	if (!f->base)
		return;
#ifdef WITH_TSAN
	__tsan_destroy_fiber(f->tsan);
#endif
	drop_frame(f);
	(void)munmap((char *)f->base - page, f->size + page);
	f->base = NULL;
}

void fiber_switch(struct fiber_stack *from, struct fiber_stack *to)
{
	leaving(from, to);
	swap(from, to);
	arrived(from);
}

void fiber_trim(struct fiber_stack *self)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uintptr_t here = (uintptr_t)__builtin_frame_address(0), base = (uintptr_t)self->base,
		  end = (here - TRIM_SLACK) & ~(uintptr_t)(page - 1);

	if (here > base && here < base + self->size && end > base)
		(void)madvise(self->base, end - base, MADV_DONTNEED);
}
