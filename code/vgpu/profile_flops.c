/* code/vgpu/profile_flops.c: from chapters/A-virtual-gpu-profile.md. Edit the chapter, or edit here and run "make untangle". */
/* Floating-point instructions of a basic block, read from the machine code itself.
 *
 * A block begins behind a call of the hook for blocks and ends at the next such call, a
 * return, or a jump to one. What the compiler has folded away is not there to be counted,
 * and what it has moved is counted where it went.
 */
#include "vgpu/profile_internal.h"

#include <capstone/capstone.h>
#include <stdlib.h>
#include <string.h>

void __sanitizer_cov_trace_pc(void);

/* weigh an instruction */
#if defined(__x86_64__)
enum { ARCHITECTURE = CS_ARCH_X86, MODE = CS_MODE_64, LONGEST = 15,
       CALL = X86_INS_CALL, JUMP = X86_INS_JMP, RETURN = X86_INS_RET,
       MARK = X86_INS_NOP };

/* addss 1, addps 4, vfmadd231sd 2; 0 for all others. */
static unsigned flops_of(const cs_insn *i)
{
    static const char *const plain[] = {"add", "sub", "mul", "div", "sqrt"};
    const char *m = i->mnemonic[0] == 'v' ? i->mnemonic + 1 : i->mnemonic;
    size_t n = strlen(m);
    if (n < 4 || (m[n - 1] != 's' && m[n - 1] != 'd') || !strchr("sp", m[n - 2]))
        return 0;
    unsigned lanes = m[n - 2] == 's' ? 1 : m[n - 1] == 's' ? 4 : 2;
    if (!strncmp(m, "fm", 2) || !strncmp(m, "fnm", 3))
        return 2 * lanes;
    for (size_t k = 0; k < sizeof plain / sizeof plain[0]; k++)
        if (n == strlen(plain[k]) + 2 && !strncmp(m, plain[k], n - 2))
            return lanes;
    return 0;
}
#else
enum { ARCHITECTURE = CS_ARCH_ARM64, MODE = CS_MODE_ARM, LONGEST = 4,
       CALL = ARM64_INS_BL, JUMP = ARM64_INS_B, RETURN = ARM64_INS_RET,
       MARK = ARM64_INS_NOP };

static unsigned flops_of(const cs_insn *i)
{
    switch (i->id) {
    case ARM64_INS_FADD: case ARM64_INS_FSUB: case ARM64_INS_FMUL: case ARM64_INS_FNMUL:
    case ARM64_INS_FDIV: case ARM64_INS_FSQRT:
        return 1;
    case ARM64_INS_FMADD: case ARM64_INS_FMSUB: case ARM64_INS_FNMADD:
    case ARM64_INS_FNMSUB:
        return 2;
    default:
        return 0;
    }
}
#endif
/* walk over a basic block */
/* Where a call or jump leads, or 0 when that is not written in it. */
static uint64_t target_of(const cs_insn *i)
{
    const char *digits = strstr(i->op_str, "0x");
    int direct = digits && !strchr(i->op_str, '[') && !strchr(i->op_str, ',');
    return direct ? strtoull(digits, NULL, 16) : 0;
}

/* A call of the hook, or the mark of a hook in place: see probed.h. */
static int begins_block(const cs_insn *i)
{
    return (i->id == CALL &&
            target_of(i) == (uint64_t)(uintptr_t)&__sanitizer_cov_trace_pc) ||
           (i->id == MARK && strstr(i->op_str, "0x646c73"));
}

static void walk(csh decoder, cs_insn *i, uintptr_t pc,
                 void (*found)(void *arg, uintptr_t pc, unsigned flops), void *arg)
{
    for (int step = 0; step < 20000; step++) {
        const uint8_t *code = (const uint8_t *)pc;
        size_t left = LONGEST;
        uint64_t address = pc;
        if (!cs_disasm_iter(decoder, &code, &left, &address, i))
            return;
        if (i->id == RETURN || begins_block(i))
            return;
        unsigned flops = flops_of(i);
        if (flops)
            found(arg, pc, flops);
        pc += i->size;
        if (i->id == JUMP && i->op_str[0] != 'b' && !(pc = (uintptr_t)target_of(i)))
            return;
    }
}
/* read the instructions of a basic block */
void dls_profile_flops(uintptr_t block,
                       void (*found)(void *arg, uintptr_t pc, unsigned flops), void *arg)
{
    static csh decoder;
    static cs_insn *instruction;
    if (!instruction) {
        if (cs_open((cs_arch)ARCHITECTURE, (cs_mode)MODE, &decoder) != CS_ERR_OK)
            return;
        instruction = cs_malloc(decoder);
    }
    if (instruction)
        walk(decoder, instruction, block, found, arg);
}
