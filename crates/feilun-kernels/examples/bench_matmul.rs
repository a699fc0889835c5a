//! Prints the speed of the matrix kernels: `cargo run --release -p feilun-kernels --example
//! bench_matmul [TYPE]`.

use feilun_kernels::bench::matmul_rate;
use feilun_kernels::{BlockType, Isa, Pool};

fn main() {
    let wanted = std::env::args().nth(1);
    let isa = std::env::args().nth(2).and_then(|name| Isa::from_name(&name)).unwrap_or(Isa::best());
    for block_type in BlockType::ALL {
        if wanted.as_deref().is_some_and(|wanted| wanted != block_type.name()) {
            continue;
        }
        for threads in [1, 2] {
            let mut pool = Pool::new(threads).expect("threads");
            for (n, k) in [(1536, 576), (576, 1536)] {
                let k =
                    k.max(block_type.block_len()) / block_type.block_len() * block_type.block_len();
                print!("{block_type:5} {isa:?} {threads} threads {n:5} x {k:5}:");
                for rows in [1, 2, 4, 8, 16, 128, 512] {
                    let rate =
                        matmul_rate(&mut pool, isa, block_type, (rows, n, k), 100 << 20, 0.2)
                            .expect("memory");
                    if rows <= 2 {
                        print!("  [{rows}] {:.1} GB/s", rate.gigabytes);
                    } else {
                        print!("  [{rows}] {:.0} GOPS", rate.gops);
                    }
                }
                println!();
            }
        }
    }
}
