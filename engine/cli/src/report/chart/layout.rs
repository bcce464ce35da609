//! Places a graph in layers: every edge goes down, few cross, long ones keep out of the way of nodes.
//!
//! The method of Sugiyama, Tagawa and Toda (1981): layers by longest path, order within a layer by the means of
//! neighbours, then places by least squares. Must not know: what a node is, how it is drawn.

use std::collections::BTreeMap;

/// Passes over the layers that look for an order, and for places; a graph of a pipeline's size settles in fewer.
const SWEEPS: usize = 12;
const SETTLING: usize = 400;

/// Sizes of what is placed.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Of a node.
    pub width: f64,
    pub height: f64,
    /// Room beside a node, and between layers.
    pub beside: f64,
    pub between: f64,
    /// Room that an edge takes where it passes a layer.
    pub passing: f64,
}

/// Where everything lies: centres of nodes, and for each edge the points it goes through.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    pub nodes: Vec<(f64, f64)>,
    pub edges: Vec<Vec<(f64, f64)>>,
    pub width: f64,
    pub height: f64,
}

/// Places `count` nodes; an edge `(from, to)` is drawn only if `from < to`, so no cycle can be asked for.
///
/// Edges of one node share the points where they pass the same layer.
pub fn place(count: usize, edges: &[(usize, usize)], sizes: Sizes) -> Layout {
    let edges: Vec<(usize, usize)> = edges.iter().copied().filter(|(from, to)| from < to && *to < count).collect();
    let layer_of = layers(count, &edges);
    let mut graph = Layered::new(&layer_of, &edges);
    graph.order();
    let x = graph.places(sizes);
    let left =
        x.iter().enumerate().map(|(vertex, x)| x - graph.room(vertex, sizes) / 2.0).fold(f64::INFINITY, f64::min);
    let right = x.iter().enumerate().map(|(vertex, x)| x + graph.room(vertex, sizes) / 2.0).fold(0.0, f64::max);
    let y = |vertex: usize| graph.layer_of[vertex] as f64 * (sizes.height + sizes.between) + sizes.height / 2.0;
    let point = |vertex: usize| (x[vertex] - left, y(vertex));
    let rows = graph.layers.len() as f64;
    Layout {
        nodes: (0..count).map(point).collect(),
        edges: graph.paths.iter().map(|path| path.iter().map(|vertex| point(*vertex)).collect()).collect(),
        width: if count == 0 { 0.0 } else { right - left },
        height: rows * sizes.height + (rows - 1.0).max(0.0) * sizes.between,
    }
}

/// A node lies below everything it needs; one that needs nothing lies just above the first that needs it.
fn layers(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut layer = vec![0; count];
    for to in 0..count {
        let above = edges.iter().filter(|edge| edge.1 == to).map(|edge| layer[edge.0] + 1);
        layer[to] = above.max().unwrap_or(0);
    }
    for node in 0..count {
        let below = edges.iter().filter(|edge| edge.0 == node).map(|edge| layer[edge.1]).min();
        if let (Some(below), false) = (below, edges.iter().any(|edge| edge.1 == node)) {
            layer[node] = below - 1;
        }
    }
    layer
}

/// Nodes and, after them, the vertices where long edges pass a layer.
struct Layered {
    nodes: usize,
    layer_of: Vec<usize>,
    layers: Vec<Vec<usize>>,
    above: Vec<Vec<usize>>,
    below: Vec<Vec<usize>>,
    paths: Vec<Vec<usize>>,
}

impl Layered {
    fn new(layer_of: &[usize], edges: &[(usize, usize)]) -> Self {
        let mut layer_of = layer_of.to_vec();
        let nodes = layer_of.len();
        let (mut passing, mut paths) = (BTreeMap::new(), Vec::new());
        for (from, to) in edges {
            let mut path = vec![*from];
            for layer in layer_of[*from] + 1..layer_of[*to] {
                path.push(*passing.entry((*from, layer)).or_insert_with(|| {
                    layer_of.push(layer);
                    layer_of.len() - 1
                }));
            }
            path.push(*to);
            paths.push(path);
        }
        let mut layers = vec![Vec::new(); layer_of.iter().max().map_or(0, |last| last + 1)];
        for (vertex, layer) in layer_of.iter().enumerate() {
            layers[*layer].push(vertex);
        }
        let (mut above, mut below) = (vec![Vec::new(); layer_of.len()], vec![Vec::new(); layer_of.len()]);
        for pair in paths.iter().flat_map(|path| path.windows(2)) {
            if !below[pair[0]].contains(&pair[1]) {
                below[pair[0]].push(pair[1]);
                above[pair[1]].push(pair[0]);
            }
        }
        Self { nodes, layer_of, layers, above, below, paths }
    }

    /// Orders each layer by the means of its neighbours, and keeps the order with the fewest crossings.
    fn order(&mut self) {
        let (mut best, mut fewest) = (self.layers.clone(), self.crossings());
        for sweep in 0..SWEEPS {
            let downwards = sweep % 2 == 0;
            let order: Vec<usize> =
                if downwards { (0..self.layers.len()).collect() } else { (0..self.layers.len()).rev().collect() };
            for layer in order {
                let rank = self.ranks();
                let neighbours = if downwards { &self.above } else { &self.below };
                let mean = |vertex: &usize| match &neighbours[*vertex] {
                    none if none.is_empty() => rank[*vertex],
                    some => some.iter().map(|other| rank[*other]).sum::<f64>() / some.len() as f64,
                };
                let mut sorted = self.layers[layer].clone();
                if sweep % 4 >= 2 {
                    sorted.reverse(); // the sort is stable: equals change places, which may free what is stuck
                }
                sorted.sort_by(|a, b| mean(a).total_cmp(&mean(b)));
                self.layers[layer] = sorted;
            }
            let crossings = self.crossings();
            if crossings < fewest {
                (best, fewest) = (self.layers.clone(), crossings);
            }
        }
        self.layers = best;
        while self.swap_neighbours() {}
    }

    /// Swaps neighbours where that takes crossings away; did it?
    fn swap_neighbours(&mut self) -> bool {
        let before = self.crossings();
        let mut fewest = before;
        for layer in 0..self.layers.len() {
            for place in 1..self.layers[layer].len() {
                self.layers[layer].swap(place - 1, place);
                match self.crossings() {
                    crossings if crossings < fewest => fewest = crossings,
                    _ => self.layers[layer].swap(place - 1, place),
                }
            }
        }
        fewest < before
    }

    /// Each vertex's place within its layer, from 0 to 1.
    fn ranks(&self) -> Vec<f64> {
        let mut rank = vec![0.0; self.layer_of.len()];
        for layer in &self.layers {
            for (place, vertex) in layer.iter().enumerate() {
                rank[*vertex] = (place as f64 + 0.5) / layer.len() as f64;
            }
        }
        rank
    }

    fn crossings(&self) -> usize {
        let mut place = vec![0; self.layer_of.len()];
        self.layers
            .iter()
            .for_each(|layer| layer.iter().enumerate().for_each(|(index, vertex)| place[*vertex] = index));
        let crosses = |layer: &Vec<usize>| {
            let edges: Vec<(usize, usize)> =
                layer.iter().flat_map(|from| self.below[*from].iter().map(|to| (place[*from], place[*to]))).collect();
            let pairs = edges.iter().enumerate().flat_map(|(index, a)| edges[index + 1..].iter().map(move |b| (a, b)));
            pairs.filter(|(a, b)| (a.0 < b.0 && a.1 > b.1) || (a.0 > b.0 && a.1 < b.1)).count()
        };
        self.layers.iter().map(crosses).sum()
    }

    fn room(&self, vertex: usize, sizes: Sizes) -> f64 {
        if vertex < self.nodes { sizes.width } else { sizes.passing }
    }

    /// Centres along the layers: each as near as its layer's order allows to the mean of its neighbours.
    fn places(&self, sizes: Sizes) -> Vec<f64> {
        let mut x = vec![0.0; self.layer_of.len()];
        for layer in &self.layers {
            let wanted = vec![(0.0, 1.0); layer.len()];
            self.settle(layer, &wanted, sizes, &mut x);
        }
        for sweep in 0..SETTLING {
            let order: Vec<usize> =
                if sweep % 2 == 0 { (0..self.layers.len()).collect() } else { (0..self.layers.len()).rev().collect() };
            for layer in order {
                let layer = &self.layers[layer];
                let wanted: Vec<(f64, f64)> = layer.iter().map(|vertex| self.wanted(*vertex, &x)).collect();
                self.settle(layer, &wanted, sizes, &mut x);
            }
        }
        x
    }

    /// How much it costs to bend an edge here: least between nodes, most where it only passes.
    fn stiffness(&self, a: usize, b: usize) -> f64 {
        match (a < self.nodes, b < self.nodes) {
            (true, true) => 1.0,
            (false, false) => 40.0,
            _ => 3.0,
        }
    }

    /// The mean of a vertex's neighbours, and the weight of that wish.
    fn wanted(&self, vertex: usize, x: &[f64]) -> (f64, f64) {
        let (mut sum, mut weight) = (0.0, 0.0);
        for other in self.above[vertex].iter().chain(&self.below[vertex]) {
            let stiffness = self.stiffness(vertex, *other);
            sum += stiffness * x[*other];
            weight += stiffness;
        }
        if weight > 0.0 { (sum / weight, weight) } else { (x[vertex], 0.1) }
    }

    /// Least squares to the wishes with the least distances kept: pools neighbours that push each other to their mean.
    fn settle(&self, layer: &[usize], wanted: &[(f64, f64)], sizes: Sizes, x: &mut [f64]) {
        let mut offsets = Vec::with_capacity(layer.len()); // distance from the first vertex, packed tight
        for (place, vertex) in layer.iter().enumerate() {
            let distance = match place.checked_sub(1).map(|before| layer[before]) {
                Some(before) => (self.room(before, sizes) + self.room(*vertex, sizes)) / 2.0 + sizes.beside,
                None => 0.0,
            };
            offsets.push(offsets.last().copied().unwrap_or(0.0) + distance);
        }
        let mut pools: Vec<(f64, f64, usize)> = Vec::new(); // mean, weight, members
        for ((wanted, weight), offset) in wanted.iter().zip(&offsets) {
            let mut pool = (wanted - offset, *weight, 1);
            while let Some(before) = pools.pop_if(|before| before.0 > pool.0) {
                let weight = before.1 + pool.1;
                pool = ((before.0 * before.1 + pool.0 * pool.1) / weight, weight, before.2 + pool.2);
            }
            pools.push(pool);
        }
        let means = pools.into_iter().flat_map(|(mean, _, members)| std::iter::repeat_n(mean, members));
        for ((vertex, offset), mean) in layer.iter().zip(offsets).zip(means) {
            x[*vertex] = mean + offset;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { width: 100.0, height: 40.0, beside: 20.0, between: 30.0, passing: 10.0 };

    #[test]
    fn a_chain_is_a_straight_line_and_every_edge_goes_down() {
        let layout = place(3, &[(0, 1), (1, 2)], SIZES);
        assert_eq!(layout.nodes, [(50.0, 20.0), (50.0, 90.0), (50.0, 160.0)]);
        assert_eq!((layout.width, layout.height), (100.0, 180.0));
    }

    #[test]
    fn a_long_edge_passes_beside_the_node_between() {
        let layout = place(3, &[(0, 1), (1, 2), (0, 2)], SIZES);
        let between = layout.edges[2][1];
        assert_eq!(layout.edges[2].len(), 3);
        assert!((between.0 - layout.nodes[1].0).abs() >= 55.0 + SIZES.beside, "{layout:?}");
    }

    #[test]
    fn crossed_edges_are_uncrossed_and_nodes_never_overlap() {
        let layout = place(6, &[(0, 4), (1, 3), (2, 5), (0, 5)], SIZES);
        for a in 0..6 {
            for b in a + 1..6 {
                let ((ax, ay), (bx, by)) = (layout.nodes[a], layout.nodes[b]);
                assert!(ay != by || (ax - bx).abs() >= 120.0 - 1e-9, "{a} and {b} overlap: {layout:?}");
            }
        }
        let graph = {
            let edges = [(0, 4), (1, 3), (2, 5), (0, 5)];
            let mut graph = Layered::new(&layers(6, &edges), &edges);
            graph.order();
            graph
        };
        assert_eq!(graph.crossings(), 0);
    }

    #[test]
    fn a_source_lies_just_above_what_needs_it_and_no_graph_panics() {
        let layout = place(5, &[(0, 1), (1, 2), (2, 4), (3, 4)], SIZES);
        assert_eq!(layout.nodes[3].1, layout.nodes[2].1);
        assert_eq!(place(0, &[], SIZES), Layout::default());
        assert_eq!(place(2, &[(1, 0), (0, 7), (1, 1)], SIZES).edges.len(), 0);
    }
}
