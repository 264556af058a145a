//! A device, its kernels and its memory.

use super::{Params, cubin, source};
use cudarc::driver::sys::{CUdevice_attribute, CUevent_flags, CUfunction_attribute};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DriverError, LaunchConfig, PushKernelArg,
};
use cudarc::nvrtc::{CompileOptions, Ptx, compile_ptx_with_opts};
use moesim_core::{Diag, Result};
use std::sync::Arc;

/// Threads of a block of the products; `MOE_THREADS`.
const THREADS: u32 = 128;
/// Shared memory of the same; `MOE_SHARED_BYTES`.
const SHARED_BYTES: u32 = 3 * (128 + 128) * 64 * 2;
/// Threads of a block that sorts; `MOE_SORT_THREADS`.
const SORT_THREADS: u32 = 256;
/// Threads of the scan, and the most experts; `MOE_MOST_EXPERTS`.
const MOST_EXPERTS: u32 = 1024;
/// Elements of a split tile's partial sums.
const PARTIAL: usize = 128 * 128;

/// Bytes on a device.
#[derive(Debug)]
pub struct DeviceMemory {
    slice: CudaSlice<u8>,
    address: u64,
}

impl DeviceMemory {
    /// Where they begin; aligned to 256.
    pub fn address(&self) -> u64 {
        self.address
    }
    /// How many.
    pub fn len(&self) -> usize {
        self.slice.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A device with the layer's kernels loaded.
#[derive(Debug)]
pub struct Gpu {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    module: Arc<CudaModule>,
    /// How the kernels were made, as in `cubin sm_90a`.
    pub code: String,
    /// Whether tall tiles of BF16 weights are multiplied by warpgroups (wgmma), which [`Gpu::knows_groups`] must allow.
    pub wgmma: bool,
    /// Blocks of the products: as many as run at once.
    pub blocks: u32,
}

/// What the driver said.
fn failed(e: DriverError) -> Diag {
    Diag::run(format!("the CUDA device failed: {e:?}"))
        .cure("see to the device; what was measured is kept, --resume goes on")
}

impl Gpu {
    /// Device `ordinal`.
    ///
    /// # Errors
    /// No driver, no such device, one without kernels that it could run, or a driver that fails: all in one line.
    pub fn open(ordinal: usize) -> Result<Self> {
        // The bindings panic without the library, so that it is asked for first.
        // SAFETY: looks for a library, whose initialisers are the driver's own.
        if !unsafe { cudarc::driver::sys::is_culib_present() } {
            return Err(Diag::run(format!("cuda:{ordinal}: no CUDA driver on this machine (libcuda was not found)"))
                .cure("measure where an NVIDIA device is, or give --device cpu or --mock"));
        }
        let lacking = |e: DriverError| {
            Diag::run(format!("cuda:{ordinal}: no such device: {e:?}")).cure("nvidia-smi lists the devices")
        };
        let context = CudaContext::new(ordinal).map_err(lacking)?;
        // SAFETY: one stream does everything here, so that nothing waits for anything else.
        unsafe { context.disable_event_tracking() };
        let stream = context.default_stream();
        let (module, code) = load(&context)?;
        let mut gpu = Self { context, stream, module, code, wgmma: false, blocks: 0 };
        let mut each = 0;
        let products = ["moe_up_wgmma", "moe_down_wgmma", "moe_up_bf16", "moe_down_bf16", "moe_up_fp8", "moe_down_fp8"];
        for name in products {
            let f = gpu.kernel(name)?;
            let limit = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            f.set_attribute(limit, SHARED_BYTES as i32).map_err(failed)?;
            each = f
                .occupancy_max_active_blocks_per_multiprocessor(THREADS, SHARED_BYTES as usize, None)
                .map_err(failed)?;
        }
        gpu.blocks = gpu.multiprocessors()? * each.max(1);
        Ok(gpu)
    }

    /// The device's name.
    ///
    /// # Errors
    /// The driver failed.
    pub fn name(&self) -> Result<String> {
        self.context.name().map_err(failed)
    }

    fn attribute(&self, a: CUdevice_attribute) -> Result<i32> {
        self.context.attribute(a).map_err(failed)
    }

    /// Multiprocessors.
    ///
    /// # Errors
    /// The driver failed.
    pub fn multiprocessors(&self) -> Result<u32> {
        Ok(self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(1) as u32)
    }

    /// Bytes of L2.
    ///
    /// # Errors
    /// The driver failed.
    pub fn l2_bytes(&self) -> Result<u64> {
        Ok(self.attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?.max(0) as u64)
    }

    /// Bytes that are free, and in all.
    ///
    /// # Errors
    /// The driver failed.
    pub fn memory_bytes(&self) -> Result<[u64; 2]> {
        let (free, all) = self.context.mem_get_info().map_err(failed)?;
        Ok([free as u64, all as u64])
    }

    /// So many bytes of zeros.
    ///
    /// # Errors
    /// There are not so many.
    pub fn memory(&self, bytes: usize) -> Result<DeviceMemory> {
        let slice = self.stream.alloc_zeros::<u8>(bytes.max(256)).map_err(failed)?;
        let address = slice.device_ptr(&self.stream).0;
        Ok(DeviceMemory { slice, address })
    }

    /// Numbers, copied to the device.
    ///
    /// # Errors
    /// The driver failed.
    pub fn copied<T: Copy>(&self, numbers: &[T]) -> Result<DeviceMemory> {
        // SAFETY: the bytes of numbers without padding; callers give integers and floats.
        let bytes = unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast::<u8>(), size_of_val(numbers)) };
        let mut memory = self.memory(bytes.len())?;
        self.stream.memcpy_htod(bytes, &mut memory.slice).map_err(failed)?;
        self.finish()?;
        Ok(memory)
    }

    /// The first `count` FP32 of a memory.
    ///
    /// # Errors
    /// The driver failed.
    pub fn floats(&self, memory: &DeviceMemory, count: usize) -> Result<Vec<f32>> {
        let bytes = self.stream.clone_dtoh(&memory.slice).map_err(failed)?;
        self.finish()?;
        let four = bytes.chunks_exact(4).take(count);
        Ok(four.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    /// Copies a host's bytes to a memory as long, or back, and waits.
    ///
    /// # Errors
    /// The driver failed.
    pub fn host_copy(&self, host: &mut HostBytes, memory: &mut DeviceMemory, to_device: bool) -> Result<()> {
        let done = match (host, to_device) {
            (HostBytes::Pageable(v), true) => self.stream.memcpy_htod(&v[..], &mut memory.slice),
            (HostBytes::Pageable(v), false) => self.stream.memcpy_dtoh(&memory.slice, &mut v[..]),
            (HostBytes::Pinned(p), true) => self.stream.memcpy_htod(p, &mut memory.slice),
            (HostBytes::Pinned(p), false) => self.stream.memcpy_dtoh(&memory.slice, p),
        };
        done.map_err(failed)?;
        self.finish()
    }

    /// Bytes on the host, pinned or not.
    ///
    /// # Errors
    /// The driver has no more to pin.
    pub fn host_bytes(&self, bytes: usize, pinned: bool) -> Result<HostBytes> {
        if !pinned {
            return Ok(HostBytes::Pageable(vec![1; bytes]));
        }
        // Plain pages: write-combined ones would be slow to read into.
        // SAFETY: bytes of any value are bytes.
        let pinned = unsafe { self.context.alloc_pinned_with_flags::<u8>(bytes, 0) }.map_err(failed)?;
        Ok(HostBytes::Pinned(pinned))
    }

    /// Waits until all is done.
    ///
    /// # Errors
    /// Something that was launched failed.
    pub fn finish(&self) -> Result<()> {
        self.stream.synchronize().map_err(failed)
    }

    /// Seconds on the device from before until after what `call` launches.
    ///
    /// # Errors
    /// Something failed.
    pub fn timed(&self, call: impl FnOnce(&Self) -> Result<()>) -> Result<f64> {
        let event = || self.context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(failed);
        let (from, to) = (event()?, event()?);
        from.record(&self.stream).map_err(failed)?;
        call(self)?;
        to.record(&self.stream).map_err(failed)?;
        to.synchronize().map_err(failed)?;
        Ok(f64::from(from.elapsed_ms(&to).map_err(failed)?) * 1e-3)
    }

    fn kernel(&self, name: &str) -> Result<CudaFunction> {
        self.module.load_function(name).map_err(failed)
    }

    fn launch(&self, name: &str, grid: u32, block: u32, shared: u32, p: &Params) -> Result<()> {
        let f = self.kernel(name)?;
        let config = LaunchConfig { grid_dim: (grid, 1, 1), block_dim: (block, 1, 1), shared_mem_bytes: shared };
        // SAFETY: the kernel takes just these parameters, and its addresses are those of memories of the sizes that it
        // asks for.
        unsafe { self.stream.launch_builder(&f).arg(p).launch(config) }.map(drop).map_err(failed)
    }

    /// Buffers of a layer that its kernels write, sized for `p`, whose addresses are set; they live as long as what is
    /// returned.
    ///
    /// # Errors
    /// There is not enough memory, or too many experts.
    pub fn buffers(&self, p: &mut Params) -> Result<Vec<DeviceMemory>> {
        let [tokens, k, hidden, widest] = [p.tokens, p.top_k, p.hidden, p.widest].map(|n| n.max(0) as usize);
        let experts = (p.routed + p.shared).max(0) as usize;
        if experts > MOST_EXPERTS as usize {
            return Err(Diag::run(format!("{experts} experts are more than the kernel sorts by ({MOST_EXPERTS})")));
        }
        let rows = tokens * (k + p.shared.max(0) as usize);
        p.blocks = self.blocks as i32;
        let mut owned = Vec::new();
        let blocks = self.blocks as usize;
        for (to, bytes) in [
            (&mut p.row_start, 4 * (experts + 1)),
            (&mut p.up_start, 4 * (experts + 1)),
            (&mut p.down_start, 4 * (experts + 1)),
            (&mut p.splits, 8),
            (&mut p.row_token, 4 * rows),
            (&mut p.row_of, 4 * tokens * k),
            (&mut p.h, 2 * rows * widest),
            (&mut p.y, 2 * rows * hidden),
            (&mut p.out, 4 * tokens * hidden),
            (&mut p.partial, 4 * blocks * PARTIAL),
            (&mut p.done, 4 * blocks),
        ] {
            owned.push(self.memory(bytes)?);
            *to = owned[owned.len() - 1].address();
        }
        Ok(owned)
    }

    /// Launches the sort.
    ///
    /// # Errors
    /// The driver failed.
    pub fn sort(&self, p: &Params) -> Result<()> {
        self.launch("moe_count", p.routed as u32, SORT_THREADS, 0, p)?;
        self.launch("moe_scan", 1, MOST_EXPERTS, 0, p)?;
        self.launch("moe_permute", (p.routed + p.shared) as u32, SORT_THREADS, 0, p)
    }

    /// Whether products of warpgroups were compiled for this device.
    ///
    /// # Errors
    /// The driver failed.
    pub fn knows_groups(&self) -> Result<bool> {
        let out = self.memory(4)?;
        self.stream("moe_knows", 1, 32, &[out.address()], None)?;
        Ok(self.floats(&out, 1)?[0].to_bits() == 1)
    }

    fn product(&self, which: &str, p: &Params) -> Result<()> {
        let how = match (p.fp8, self.wgmma) {
            (0, true) => "wgmma",
            (0, false) => "bf16",
            _ => "fp8",
        };
        self.launch(&format!("moe_{which}_{how}"), p.blocks as u32, THREADS, SHARED_BYTES, p)
    }

    /// Launches the second product alone, which with one expert is a dense one.
    ///
    /// # Errors
    /// The driver failed.
    pub fn down(&self, p: &Params) -> Result<()> {
        self.product("down", p)
    }

    /// Launches a layer, from its sort to its combine.
    ///
    /// # Errors
    /// The driver failed.
    pub fn layer(&self, p: &Params) -> Result<()> {
        self.sort(p)?;
        self.product("up", p)?;
        self.down(p)?;
        self.launch("moe_combine", p.tokens as u32, 256, 0, p)
    }

    /// Launches one of the kernels that move bytes: `grid` blocks of 512 threads with these 64-bit arguments, and
    /// perhaps one of 32 bits behind them.
    ///
    /// # Errors
    /// The driver failed.
    pub fn stream(&self, name: &str, grid: u32, block: u32, args: &[u64], last: Option<u32>) -> Result<()> {
        let f = self.kernel(name)?;
        let mut builder = self.stream.launch_builder(&f);
        for a in args {
            builder.arg(a);
        }
        if let Some(last) = &last {
            builder.arg(last);
        }
        let config = LaunchConfig { grid_dim: (grid, 1, 1), block_dim: (block, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: addresses and counts are those of one memory; the callers give each kernel what it takes.
        unsafe { builder.launch(config) }.map(drop).map_err(failed)
    }
}

/// Bytes on the host.
#[derive(Debug)]
pub enum HostBytes {
    /// As any program's.
    Pageable(Vec<u8>),
    /// Kept in place for the device.
    Pinned(cudarc::driver::PinnedHostSlice<u8>),
}

/// The kernels: compiled here, or a cubin.
fn load(context: &Arc<CudaContext>) -> Result<(Arc<CudaModule>, String)> {
    let (major, minor) = context.compute_capability().map_err(failed)?;
    // SAFETY: looks for a library.
    if unsafe { cudarc::nvrtc::sys::is_culib_present() }
        && let Some(arch) = virtual_architecture(major, minor)
    {
        let options = vec!["-default-device".into(), "--std=c++17".into()];
        let options = CompileOptions { arch: Some(arch), options, ..Default::default() };
        // What an older driver cannot load, a cubin may still serve.
        let compiled = compile_ptx_with_opts(source(), options).ok().and_then(|ptx| context.load_module(ptx).ok());
        if let Some(module) = compiled {
            return Ok((module, format!("nvrtc {arch}")));
        }
    }
    let (name, cubin) = cubin(major, minor)?.ok_or_else(|| {
        let problem =
            format!("compute capability {major}.{minor} has no cubin here, and NVRTC was not found or not of use");
        Diag::run(problem).cure("install the CUDA toolkit's NVRTC; devices before 8.0 cannot run the kernels")
    })?;
    let module = context.load_module(Ptx::from_binary(cubin)).map_err(|e| {
        Diag::run(format!("the driver does not load the cubin of {name}: {e:?}"))
            .cure("install the CUDA toolkit's NVRTC of the driver's version, or a later driver")
    })?;
    Ok((module, format!("cubin {name}")))
}

/// What NVRTC compiles for.
fn virtual_architecture(major: i32, minor: i32) -> Option<&'static str> {
    Some(match (major, minor) {
        (8, 0..=5) => "compute_80",
        (8, 6..=8) => "compute_86",
        (8, _) => "compute_89",
        // With the products of warpgroups, which only this one has.
        (9, 0) => "compute_90a",
        (9, _) => "compute_90",
        (10, _) => "compute_100",
        (12, _) => "compute_120",
        _ => return None,
    })
}
