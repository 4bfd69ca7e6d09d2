/* Requests to VFIO's type1 container, by the user's own structures, and the IOMMU's domains. */

#include <uapi/linux/vfio.h>

int probe_type1_ioctl(struct pt_regs *ctx, void *iommu, unsigned int cmd, unsigned long arg)
{
    struct event e;

    begin(&e, KIND_type1_ioctl);
    e.value[0] = (u64)iommu;
    e.value[1] = cmd;
    if (cmd == VFIO_IOMMU_MAP_DMA) {
        struct vfio_iommu_type1_dma_map map = {};

        bpf_probe_read_user(&map, sizeof(map), (void *)arg);
        e.value[2] = map.argsz;
        e.value[3] = map.flags;
        e.value[4] = map.vaddr;
        e.value[5] = map.iova;
        e.value[6] = map.size;
    } else if (cmd == VFIO_IOMMU_UNMAP_DMA) {
        struct vfio_iommu_type1_dma_unmap unmap = {};

        bpf_probe_read_user(&unmap, sizeof(unmap), (void *)arg);
        e.value[2] = unmap.argsz;
        e.value[3] = unmap.flags;
        e.value[4] = unmap.iova;
        e.value[5] = unmap.size;
    } else {
        struct vfio_iommu_type1_info head = {};

        bpf_probe_read_user(&head, 8, (void *)arg);
        e.value[2] = head.argsz;
        e.value[3] = head.flags;
    }
    sent(events.perf_submit(ctx, &e, sizeof(e)));
    return 0;
}

int probe_type1_ioctl_ret(struct pt_regs *ctx)
{
    struct event e;

    begin(&e, KIND_type1_ioctl_ret);
    e.value[0] = PT_REGS_RC(ctx);
    sent(events.perf_submit(ctx, &e, sizeof(e)));
    return 0;
}

int probe_iommu_map(struct pt_regs *ctx, void *domain, unsigned long iova, u64 paddr, size_t size,
                    int prot)
{
    struct event e;

    begin(&e, KIND_iommu_map);
    e.value[0] = (u64)domain;
    e.value[1] = iova;
    e.value[2] = paddr;
    e.value[3] = size;
    e.value[4] = (u32)prot;
    sent(events.perf_submit(ctx, &e, sizeof(e)));
    return 0;
}

int probe_iommu_domain_free(struct pt_regs *ctx, void *domain)
{
    struct event e;

    begin(&e, KIND_iommu_domain_free);
    e.value[0] = (u64)domain;
    sent(events.perf_submit(ctx, &e, sizeof(e)));
    return 0;
}
