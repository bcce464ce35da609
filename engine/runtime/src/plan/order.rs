//! The graph: which stages wait for which, and an order in which all of them can run.

use petgraph::{graph::DiGraph, visit::Topo};

use crate::pipeline::StageDef;

/// Positions of the stages each stage waits for, and all of them in waves: what a wave needs lies in earlier ones.
pub struct Order {
    pub needs: Vec<Box<[u32]>>,
    /// The file's order among equals.
    pub topological: Vec<u32>,
    pub waves: Vec<Vec<u32>>,
}

/// Stages on a cycle are in no wave; the pipeline has reported them.
pub fn order(defs: &[StageDef]) -> Order {
    let needs: Vec<Box<[u32]>> = defs.iter().map(|def| def.needs().into_boxed_slice()).collect();
    let edges = needs.iter().map(|needs| needs.len()).sum();
    let mut graph = DiGraph::<(), (), u32>::with_capacity(defs.len(), edges);
    // Topo takes the last added first among equals: added backwards, stages keep the file's order.
    let last = defs.len().saturating_sub(1);
    for _ in defs {
        graph.add_node(());
    }
    let node = |stage: usize| petgraph::graph::NodeIndex::<u32>::new(last - stage);
    for (stage, needs) in needs.iter().enumerate() {
        for need in needs {
            graph.add_edge(node(*need as usize), node(stage), ());
        }
    }
    let mut walk = Topo::new(&graph);
    let mut topological = Vec::with_capacity(defs.len());
    let mut depth = vec![0_u32; defs.len()];
    let mut waves: Vec<Vec<u32>> = Vec::new();
    while let Some(found) = walk.next(&graph) {
        let stage = last - found.index();
        topological.push(stage as u32);
        let wave = needs[stage].iter().map(|need| depth[*need as usize] + 1).max().unwrap_or(0);
        depth[stage] = wave;
        if waves.len() <= wave as usize {
            waves.push(Vec::new());
        }
        waves[wave as usize].push(stage as u32);
    }
    Order { needs, topological, waves }
}
