/* code/vgpu/gpu_virtual_pitched.c: from chapters/A-virtual-gpu-pitched.md. Edit the chapter, or edit here and run "make untangle". */
/* cudaMallocPitch, cudaMemcpy2D, cudaMemcpy3D and cudaMemset2D: boxes of memory. */
#include "vgpu/vgpu_internal.h"

/* allocate a box */
enum { PITCH = 512 };

cudaError_t cudaMallocPitch(void **pointer, size_t *pitch, size_t width, size_t height)
{
    cudaError_t error = dls_vgpu_enter();
    size_t row = (width + PITCH - 1) / PITCH * PITCH;
    if (error == cudaSuccess &&
        (pointer == NULL || pitch == NULL || row < width ||
         (height && row > (size_t)-1 / height)))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        error = dls_vgpu_capture_unsafe(-1);
    if (error == cudaSuccess)
        error = dls_vgpu_allocate(pointer, row * height, dls_vgpu_device(),
                                  __builtin_return_address(0));
    if (error == cudaSuccess)
        *pitch = row;
    return dls_vgpu_leave(error);
}

cudaError_t cudaMalloc3D(struct cudaPitchedPtr *pointer, struct cudaExtent e)
{
    cudaError_t error = dls_vgpu_enter();
    struct cudaPitchedPtr p = {0, 0, e.width, e.height};
    if (error == cudaSuccess &&
        (pointer == NULL || (e.depth && e.height > (size_t)-1 / e.depth)))
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess)
        error = cudaMallocPitch(&p.ptr, &p.pitch, e.width, e.height * e.depth);
    if (error == cudaSuccess)
        *pointer = p;
    return dls_vgpu_leave(error);
}

/* copy a matrix */
static cudaError_t copy_matrix(dls_vgpu_box box, cudaMemcpyKind kind, cudaStream_t stream,
                               int wait)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && box.width > 0 && box.height > 0 &&
        (box.to_pitch < box.width || box.from_pitch < box.width ||
         box.to_pitch > 0x7fffffff || box.from_pitch > 0x7fffffff))
        error = cudaErrorInvalidPitchValue;
    if (error == cudaSuccess)
        error = dls_vgpu_copy(box, kind, stream, wait);
    return dls_vgpu_leave(error);
}

cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                         size_t width, size_t height, enum cudaMemcpyKind kind)
{
    dls_vgpu_box box = {to, from, width, height, 1, to_pitch, 0, from_pitch, 0};
    return copy_matrix(box, kind, NULL, kind != cudaMemcpyDeviceToDevice);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from,
                              size_t from_pitch, size_t width, size_t height,
                              enum cudaMemcpyKind kind, cudaStream_t stream)
{
    dls_vgpu_box box = {to, from, width, height, 1, to_pitch, 0, from_pitch, 0};
    return copy_matrix(box, kind, stream, 0);
}

/* copy a volume */
static int lies_inside(struct cudaPitchedPtr p, struct cudaPos at, struct cudaExtent e)
{
    return at.x <= p.pitch && e.width <= p.pitch - at.x &&
           (e.depth <= 1 || (at.y <= p.ysize && e.height <= p.ysize - at.y));
}

static void *address_of(struct cudaPitchedPtr p, struct cudaPos at)
{
    return p.ptr ? (char *)p.ptr + (at.z * p.ysize + at.y) * p.pitch + at.x : NULL;
}

static cudaError_t copy_volume(const struct cudaMemcpy3DParms *p, cudaStream_t stream,
                               int may_wait)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && p == NULL)
        error = cudaErrorInvalidValue;
    if (error == cudaSuccess && (p->srcArray || p->dstArray))
        error = cudaErrorNotSupported;
    if (error == cudaSuccess && p->extent.width && p->extent.height && p->extent.depth &&
        (!lies_inside(p->srcPtr, p->srcPos, p->extent) ||
         !lies_inside(p->dstPtr, p->dstPos, p->extent)))
        error = cudaErrorInvalidPitchValue;
    if (error == cudaSuccess) {
        dls_vgpu_box box = {
            address_of(p->dstPtr, p->dstPos), address_of(p->srcPtr, p->srcPos),
            p->extent.width, p->extent.height, p->extent.depth, p->dstPtr.pitch,
            p->dstPtr.pitch * p->dstPtr.ysize, p->srcPtr.pitch,
            p->srcPtr.pitch * p->srcPtr.ysize};
        error = dls_vgpu_copy(box, p->kind, stream,
                              may_wait && p->kind != cudaMemcpyDeviceToDevice);
    }
    return dls_vgpu_leave(error);
}

cudaError_t cudaMemcpy3D(const struct cudaMemcpy3DParms *p)
{
    return copy_volume(p, NULL, 1);
}

cudaError_t cudaMemcpy3DAsync(const struct cudaMemcpy3DParms *p, cudaStream_t stream)
{
    return copy_volume(p, stream, 0);
}

/* set a box */
static cudaError_t set_box(dls_vgpu_box box, int value, cudaStream_t stream)
{
    cudaError_t error = dls_vgpu_enter();
    if (error == cudaSuccess && box.width && box.height && box.depth &&
        box.to_pitch < box.width)
        error = cudaErrorInvalidPitchValue;
    if (error == cudaSuccess)
        error = dls_vgpu_set(box, value, stream);
    return dls_vgpu_leave(error);
}

cudaError_t cudaMemset2DAsync(void *to, size_t pitch, int value, size_t width,
                              size_t height, cudaStream_t stream)
{
    return set_box((dls_vgpu_box){to, NULL, width, height, 1, pitch, 0, 0, 0}, value,
                   stream);
}

cudaError_t cudaMemset3DAsync(struct cudaPitchedPtr to, int value, struct cudaExtent e,
                              cudaStream_t stream)
{
    return set_box((dls_vgpu_box){to.ptr, NULL, e.width, e.height, e.depth, to.pitch,
                                  to.pitch * to.ysize, 0, 0}, value, stream);
}

cudaError_t cudaMemset2D(void *to, size_t pitch, int value, size_t width, size_t height)
{
    return cudaMemset2DAsync(to, pitch, value, width, height, NULL);
}

cudaError_t cudaMemset3D(struct cudaPitchedPtr to, int value, struct cudaExtent extent)
{
    return cudaMemset3DAsync(to, value, extent, NULL);
}
