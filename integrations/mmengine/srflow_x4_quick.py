"""A compact SRFlow x4 for mmengine's Runner, as options/train_SRFlow_x4_quick.yml has it. No download."""

custom_imports = dict(imports=["srflow_plugin.integrations.mmengine"])
default_scope = "mmengine"

model = dict(
    type="SRFlow",
    temperature=0.0,  # of validation
    network=dict(
        type="SRFlowNet",
        scale=4,
        num_feat=32,
        num_grow_ch=16,
        num_block=4,
        feature_blocks=[1, 3],
        num_steps=4,
        num_levels=3,
        hidden_channels=32,
        scale_floor=0.3,
        noise="uniform",
    ),
)

train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="SRPairs",
        phase="train",
        scale=4,
        prepare="embedded",  # the photographs that scikit-image carries; leave it out for data of your own
        dataroot_gt="datasets/embedded/train_HR.lmdb",
        dataroot_lq="datasets/embedded/train_LRx4.lmdb",
        io_backend=dict(type="lmdb"),
        gt_size=64,
        use_hflip=True,
        use_rot=True,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="SRPairs",
        phase="val",
        scale=4,
        prepare="embedded",
        dataroot_gt="datasets/embedded/val_HR.lmdb",
        dataroot_lq="datasets/embedded/val_LRx4.lmdb",
        io_backend=dict(type="lmdb"),
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="SRMetrics",
    sections=dict(psnr=dict(type="calculate_psnr", crop_border=4, test_y_channel=True)),
)
test_evaluator = val_evaluator

train_cfg = dict(type="IterBasedTrainLoop", max_iters=800, val_interval=400)
val_cfg = dict()
test_cfg = dict()

optim_wrapper = dict(
    optimizer=dict(type="Adam", lr=1e-3, betas=(0.9, 0.99)),
    clip_grad=dict(max_norm=10),
)
param_scheduler = dict(type="MultiStepLR", by_epoch=False, milestones=[400, 600, 720, 760], gamma=0.5)

custom_hooks = [dict(type="FreezeEncoder", iters=0)]
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=20),
    checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=200),
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
work_dir = "experiments/mmengine_srflow_x4_quick"
