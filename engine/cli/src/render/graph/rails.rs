//! A graph as text: one line a node, and rails beside them that carry what is still to be read.
//!
//! ```text
//! ●      base   model.load
//! │ ●    rows   data.load
//! ├─●    sft    train.sft
//! ```

use super::{Graph, Node};
use crate::render::{format, style::Paint};

/// The whole drawing, a node a line.
pub(super) fn text(graph: &Graph, width: usize, paint: Paint) -> String {
    let rails = Rails::lay(graph);
    let columns = rails.iter().map(|(_, cells)| cells.chars().count()).max().unwrap_or_default();
    let names = graph.nodes.iter().map(|node| console::measure_text_width(&node.name)).max().unwrap_or_default();
    let names = names.min(width / 3);
    let mut text = String::new();
    for (index, cells) in rails {
        let node = &graph.nodes[index];
        let gap = columns - cells.chars().count();
        let name =
            console::pad_str(&format::fit(&node.name, names), names, console::Alignment::Left, None).into_owned();
        let room = width.saturating_sub(columns + names + 5);
        let about = paint.dim(&format::fit(&node.about, room));
        let cells = cells.replace(MARK, &symbol(node, paint));
        text.push_str(format!(" {cells}{:gap$}  {}  {about}", "", paint.bold(&name)).trim_end());
        text.push('\n');
    }
    text
}

/// Stands where a node is, until its symbol takes the place.
const MARK: char = '\u{1}';

fn symbol(node: &Node, paint: Paint) -> String {
    match node.state.as_str() {
        "cached" => paint.green("✓"),
        "ran" => paint.green("●"),
        "run" => paint.cyan("●"),
        "refused" => paint.red("✗"),
        "skipped" => paint.dim("○"),
        _ => paint.dim("◐"),
    }
}

/// What stands in each column below the line that was drawn last.
struct Rails<'a> {
    /// The node whose result a rail carries.
    carried: Vec<Option<usize>>,
    /// How many nodes have yet to read each node's result.
    unread: Vec<usize>,
    needs: Vec<Vec<usize>>,
    graph: &'a Graph,
}

impl<'a> Rails<'a> {
    /// Every node with the cells of its line, from sources to ends.
    fn lay(graph: &'a Graph) -> Vec<(usize, String)> {
        let mut needs = vec![Vec::new(); graph.nodes.len()];
        let mut unread = vec![0; graph.nodes.len()];
        for (from, to) in &graph.edges {
            needs[*to].push(*from);
            unread[*from] += 1;
        }
        let mut rails = Self { carried: Vec::new(), unread, needs, graph };
        rails.order().into_iter().map(|node| (node, rails.line(node))).collect()
    }

    /// Each end after what it needs, so that a rail is begun shortly before it is read.
    fn order(&self) -> Vec<usize> {
        let (mut order, mut seen) = (Vec::new(), vec![false; self.graph.nodes.len()]);
        for end in (0..self.graph.nodes.len()).filter(|node| self.unread[*node] == 0) {
            let mut stack = vec![(end, 0)];
            seen[end] = true;
            while let Some((node, next)) = stack.pop() {
                match self.needs[node].get(next) {
                    Some(need) => {
                        stack.push((node, next + 1));
                        if !std::mem::replace(&mut seen[*need], true) {
                            stack.push((*need, 0));
                        }
                    }
                    None => order.push(node),
                }
            }
        }
        order
    }

    fn line(&mut self, node: usize) -> String {
        let read: Vec<usize> = (0..self.carried.len())
            .filter(|column| self.carried[*column].is_some_and(|carried| self.needs[node].contains(&carried)))
            .collect();
        for need in &self.needs[node] {
            self.unread[*need] -= 1;
        }
        let ends = |rails: &Self, column: usize| rails.carried[column].is_none_or(|carried| rails.unread[carried] == 0);
        let own = read.iter().copied().find(|column| ends(self, *column));
        let own = own.or_else(|| self.carried.iter().position(Option::is_none)).unwrap_or(self.carried.len());
        if own == self.carried.len() {
            self.carried.push(None);
        }
        let first = read.iter().copied().chain([own]).min().unwrap_or(own);
        let last = read.iter().copied().chain([own]).max().unwrap_or(own);
        let mut cells = String::new();
        for column in 0..self.carried.len() {
            let is_read = read.contains(&column);
            let is_between = (first..=last).contains(&column);
            cells.push(match (column == own, is_read, self.carried[column]) {
                (true, ..) => MARK,
                (_, true, _) => joint(column == first, column == last, ends(self, column)),
                (_, _, Some(_)) => '│',
                _ if is_between => '─',
                _ => ' ',
            });
            cells.push(if is_between && column < last { '─' } else { ' ' });
        }
        for column in read {
            if ends(self, column) {
                self.carried[column] = None;
            }
        }
        self.carried[own] = (self.unread[node] > 0).then_some(node);
        while self.carried.last().is_some_and(Option::is_none) {
            self.carried.pop();
        }
        cells.trim_end().to_owned()
    }
}

/// Where a rail is read: at the left or right end of the line, and whether the rail ends there.
fn joint(is_first: bool, is_last: bool, ends: bool) -> char {
    match (is_first, is_last, ends) {
        (true, _, true) => '╰',
        (true, _, false) => '├',
        (_, true, true) => '╯',
        (_, true, false) => '┤',
        (_, _, true) => '┴',
        (_, _, false) => '┼',
    }
}
